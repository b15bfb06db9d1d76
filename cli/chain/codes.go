package chain

// Code names a fault, or something worth knowing, in the same words for ever.
type Code string

// Severity says what a finding means for those who ask for the name.
type Severity string

// The severities, the worst first.
const (
	// Broken: validators refuse the answer (SERVFAIL).
	Broken Severity = "broken"
	// Fault: validators may get through, by other servers or since they are
	// lenient; it is to be mended.
	Fault Severity = "fault"
	// Warning: it works, and may not for long or not for everybody.
	Warning Severity = "warning"
	// Info is worth knowing, and nothing is wrong.
	Info Severity = "info"
)

// Rank orders severities, the worst first.
func (s Severity) Rank() int {
	switch s {
	case Broken:
		return 0
	case Fault:
		return 1
	case Warning:
		return 2
	default:
		return 3
	}
}

// The codes.
const (
	CodeAnchorNoKey       Code = "anchor-no-key"
	CodeDSNoKey           Code = "ds-no-key"
	CodeDSKeyNotSigning   Code = "ds-key-not-signing"
	CodeDSAbsenceUnproven Code = "ds-absence-unproven"
	CodeDSUnusable        Code = "ds-unusable"
	CodeDSMissing         Code = "ds-missing"
	CodeDSStandby         Code = "ds-standby"
	CodeDSSHA1            Code = "ds-sha1"
	CodeDNSKEYMissing     Code = "dnskey-missing"
	CodeKeyRevoked        Code = "key-revoked"
	CodeAlgorithmUnsigned Code = "algorithm-unsigned"
	CodeAlgorithmSHA1     Code = "algorithm-sha1"
	CodeSignatureMissing  Code = "signature-missing"
	CodeSignatureExpired  Code = "signature-expired"
	CodeSignatureNotYet   Code = "signature-not-yet-valid"
	CodeSignatureNoKey    Code = "signature-no-key"
	CodeSignatureWrong    Code = "signature-wrong"
	CodeSignatureSigner   Code = "signature-signer"
	CodeSignatureSoon     Code = "signature-expires-soon"
	CodeSignatureExpire   Code = "signature-before-expire"
	CodeDenialMissing     Code = "denial-missing"
	CodeDenialNotCovering Code = "denial-not-covering"
	CodeDenialBitmap      Code = "denial-bitmap"
	CodeDenialWildcard    Code = "denial-wildcard"
	CodeDenialRcode       Code = "denial-rcode"
	CodeDenialOptOut      Code = "denial-opt-out"
	CodeDenialIterations  Code = "denial-iterations"
	CodeServerSilent      Code = "server-silent"
	CodeServerLame        Code = "server-lame"
	CodeServerTCP         Code = "server-tcp"
	CodeServerEDNS        Code = "server-edns"
	CodeServerTruncation  Code = "server-truncation"
	CodeServerMalformed   Code = "server-malformed"
	CodeServerNoDNSSEC    Code = "server-no-dnssec"
	CodeServerNoAddress   Code = "server-no-address"
	CodeServerUnreachable Code = "server-unreachable"
	CodeServersSerial     Code = "servers-serial"
	CodeServersDNSKEY     Code = "servers-dnskey"
	CodeDelegationNS      Code = "delegation-ns"
	CodeCDSAhead          Code = "cds-ahead"
	CodeCDSNoKey          Code = "cds-no-key"
	CodeCDSDisagree       Code = "cds-disagree"
	CodeAliasLoop         Code = "alias-loop"
	CodeTooMany           Code = "too-many"
	CodeNotAsked          Code = "not-asked"
)

// Meaning is what a code stands for.
type Meaning struct {
	Code Code
	// Severity is how bad it is where every server shows it. What is Broken is a
	// Fault where some server gives an answer that is well.
	Severity Severity
	// Title says what it is, in a few words.
	Title string
	// Do says what to do about it.
	Do string
}

// Meanings lists all codes, in the order in which the chain is followed.
func Meanings() []Meaning {
	return append(append(chainMeanings(), zoneMeanings()...), serverMeanings()...)
}

// chainMeanings are those of anchors, DS and DNSKEY.
func chainMeanings() []Meaning {
	return []Meaning{
		{CodeAnchorNoKey, Broken, "the trust anchor matches no DNSKEY", "compare the anchor with the zone's keys; of the root, take a newer version of this program or give the current anchor with --anchor"},
		{CodeDSNoKey, Broken, "the DS matches no DNSKEY", "have the parent's DS replaced by that of a key that the zone has (sluice key ds ZONE), or publish the key again; remove no key before its DS is gone"},
		{CodeDSKeyNotSigning, Broken, "the key that the DS stands for does not sign the DNSKEY RRset", "sign the DNSKEY RRset with the key of the DS, or have the DS replaced by that of a key that signs"},
		{CodeDSAbsenceUnproven, Broken, "the parent does not prove that there is no DS", "the parent's operator has to mend its NSEC or NSEC3 chain; tell them the name and the server"},
		{CodeDSUnusable, Warning, "all DS have algorithms or digest types that validators do not know", "have a DS of digest type 2 and of a current algorithm put at the parent; until then the zone counts as unsigned"},
		{CodeDSMissing, Warning, "the zone is signed and its parent has no DS", "hand the zone's DS to the parent (sluice key ds ZONE); until then the zone counts as unsigned"},
		{CodeDSStandby, Info, "a DS without a key, beside one that is well", "nothing, where it is that of a stand-by key or of a rollover; else have it removed"},
		{CodeDSSHA1, Warning, "a DS with a SHA-1 digest", "have it removed at the parent, where it is alone once one of digest type 2 is there: no DS is to be made with SHA-1 (RFC 8624, 3.3)"},
		{CodeDNSKEYMissing, Broken, "there is a DS, and the zone has no DNSKEY", "sign the zone again with the key of the DS, or have the DS removed at the parent and wait for its TTL before the zone goes unsigned"},
		{CodeKeyRevoked, Info, "a key is revoked", "nothing, while a rollover after RFC 5011 goes on; a DS of it must go"},
		{CodeAlgorithmUnsigned, Fault, "an algorithm of the DS or DNSKEY RRset has not signed all", "sign every RRset with each algorithm that the DNSKEY RRset has (RFC 6840, 5.11), or take the algorithm's keys out again; strict validators refuse this"},
		{CodeAlgorithmSHA1, Warning, "the zone is signed with SHA-1", "roll to algorithm 13: validators treat the zone as unsigned (RFC 9905), old ones still validate it"},
	}
}

// zoneMeanings are those of signatures and proofs.
func zoneMeanings() []Meaning {
	return []Meaning{
		{CodeSignatureMissing, Broken, "an RRset has no signature", "sign the zone again, and see that all its servers have the signed version"},
		{CodeSignatureExpired, Broken, "the signatures of an RRset have expired", "sign the zone again now, and find out why the signer stopped or why its versions do not arrive"},
		{CodeSignatureNotYet, Broken, "the signatures of an RRset are not valid yet", "set the clock that is wrong; signatures begin an hour before they are made, against clocks that are a little off"},
		{CodeSignatureNoKey, Broken, "the key of a signature is not in the DNSKEY RRset", "publish the key again, or sign with one that is published; remove no key before its last signature is gone from caches"},
		{CodeSignatureWrong, Broken, "a signature does not fit the data", "sign the zone again; something between signer and server changes records, or two signers share a key tag"},
		{CodeSignatureSigner, Broken, "a signature is in another zone's name", "the server mixes up zones: see which ones it serves, and that the delegation is there"},
		{CodeSignatureSoon, Warning, "signatures expire soon", "see that the signer runs and that its versions arrive at the servers"},
		{CodeSignatureExpire, Warning, "signatures expire before a secondary gives the zone up (SOA EXPIRE)", "let signatures live longer or lower SOA EXPIRE (RFC 6781, 4.4.1): a secondary that is cut off serves expired signatures"},
		{CodeDenialMissing, Broken, "nothing proves that a name or type is not there", "sign the zone again with its NSEC or NSEC3 chain, and see that the server knows that the zone is signed"},
		{CodeDenialNotCovering, Broken, "the NSEC or NSEC3 records do not cover the name", "sign the zone again in full: its denial chain has gaps or belongs to another version"},
		{CodeDenialBitmap, Broken, "an NSEC or NSEC3 record lists the type that is said not to be there", "sign the zone again in full, and see that the server does not leave out records"},
		{CodeDenialWildcard, Broken, "nothing proves what wildcards do", "sign the zone again in full, and see that the server gives the proof about the wildcard (RFC 4035, 3.1.3)"},
		{CodeDenialRcode, Fault, "the answer's code contradicts its proof", "the server's software is at fault: a name with names below it exists (RFC 8020); some validators refuse the answer"},
		{CodeDenialOptOut, Broken, "a delegation is denied by an NSEC3 that has no opt-out", "sign the zone again in full: the delegation has no NSEC3 of its own, and the span around it is not marked opt-out"},
		{CodeDenialIterations, Warning, "NSEC3 has iterations", "sign with 0 iterations and no salt (RFC 9276); above 100 validators treat the zone as unsigned, or refuse it"},
		{CodeAliasLoop, Broken, "aliases lead in a circle, or too far", "mend the CNAME records"},
	}
}

// serverMeanings are those of servers, and of what they have in common.
func serverMeanings() []Meaning {
	return []Meaning{
		{CodeServerSilent, Fault, "a server does not answer", "see that it runs and that no firewall is between; take it out of the NS records where it is gone"},
		{CodeServerLame, Fault, "a server does not serve the zone", "have it serve the zone, or take it out of the NS records here and at the parent"},
		{CodeServerTCP, Fault, "a server does not answer over TCP", "open TCP port 53: every server must answer there (RFC 7766)"},
		{CodeServerEDNS, Fault, "a server has trouble with EDNS", "update the server's software or mend the firewall: without EDNS there is no DNSSEC (RFC 6891)"},
		{CodeServerTruncation, Fault, "a server truncates answers where it must not", "update the server's software, or lower what it has to send"},
		{CodeServerMalformed, Fault, "a server sends what cannot be read", "update the server's software"},
		{CodeServerNoDNSSEC, Fault, "a server gives no signatures", "see that it has the signed version of the zone, and that its software knows DNSSEC"},
		{CodeServerNoAddress, Fault, "a name server has no address", "give it an address, and glue at the parent where it is below the zone; or take it out of the NS records"},
		{CodeServerUnreachable, Info, "this machine has no way to an address", "nothing; a machine with IPv6 can ask there too"},
		{CodeServersSerial, Warning, "servers have different serials", "wait a moment and check again; where it stays, see why the transfers to the older ones fail"},
		{CodeServersDNSKEY, Fault, "servers have different DNSKEY RRsets", "see why the transfers to the older ones fail; where several signers serve the zone, exchange their keys (RFC 8901)"},
		{CodeDelegationNS, Warning, "the parent names other name servers than the zone", "bring the NS records of both into line"},
		{CodeCDSAhead, Info, "the parent has not followed the CDS yet", "nothing, where the parent reads CDS: it takes up to a day; else hand it the DS yourself (sluice key ds ZONE)"},
		{CodeCDSNoKey, Fault, "a CDS is of a key that the zone does not have", "take the CDS out before the parent follows it: the zone would break"},
		{CodeCDSDisagree, Fault, "CDS and CDNSKEY are of different keys", "publish both of the same keys (RFC 7344, 4); a parent may refuse either"},
		{CodeTooMany, Broken, "there is more than validators look at", "remove keys with equal tags and signatures that are not needed"},
		{CodeNotAsked, Warning, "not all was asked: the check's bounds were reached", "check a name closer to the fault by itself"},
	}
}

// MeaningOf finds the meaning of a code; ok is false where it is none.
func MeaningOf(code Code) (m Meaning, ok bool) {
	for _, m := range Meanings() {
		if m.Code == code {
			return m, true
		}
	}
	return Meaning{}, false
}
