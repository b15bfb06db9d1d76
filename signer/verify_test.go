package signer

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/signer/zone"
)

func mustVerify(t testing.TB, z memZone, p Params, change func(*VerifyOptions)) *Report {
	t.Helper()
	o := VerifyOptions{Apex: p.Apex, At: testTime(), Spill: memSpill{}, Workers: 2}
	if change != nil {
		change(&o)
	}
	r, err := Verify(t.Context(), z.merged(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestVerify_SignedZoneHasNoFault(t *testing.T) {
	contents := parse(t, "example.", sampleZone)
	for _, alg := range []uint8{algRSASHA256, algRSASHA512, algP256, algP384, algEd25519, algEd448} {
		for _, denial := range []Denial{NSEC, NSEC3, NSEC3OptOut} {
			for _, zonemd := range []bool{false, true} {
				p := testParams("example.", denial)
				p.ZONEMD = zonemd
				p.Jitter = 24 * time.Hour
				keys := testKeys(t, alg)
				z, res := mustSign(t, contents, keys, p)
				r := mustVerify(t, z, p, func(o *VerifyOptions) {
					ds, err := dsRData(p.Apex, keys[0].DNSKEY, 2)
					if err != nil {
						t.Fatal(err)
					}
					o.Anchors = []Anchor{{zone.TypeDS, ds}}
					o.ContentSum, o.SignedSum = &res.ContentSum, &res.SignedSum
				})
				if !r.OK() {
					t.Errorf("algorithm %d %s: %v", alg, denial, r.Err())
				}
				if r.Records != res.Records || r.RRsets != res.RRsets || r.Signatures != res.Signatures ||
					!r.Earliest.Equal(res.Earliest) || r.Denial != denial || r.Serial != p.Serial || r.ZONEMD != zonemd ||
					r.Checked != r.Signatures {
					t.Errorf("algorithm %d %s: report %+v, result %+v", alg, denial, r, res)
				}
			}
		}
	}
}

// resignItem makes the RRSIGs of one RRset again, so that damage is validly
// signed.
func resignItem(t testing.TB, z memZone, owner string, typ zone.Type, k Key, p Params) {
	t.Helper()
	name, err := zone.ParseName(owner)
	if err != nil {
		t.Fatal(err)
	}
	key := zone.AppendKey(nil, zone.KindMade, name, typ)
	kind := zone.KindSigs
	if z[string(key)] == nil {
		key[0] = byte(zone.KindContents)
	}
	if typ == zone.TypeNSEC3 {
		key[0], kind = byte(zone.KindChain), zone.KindChainSigs
	}
	v := zone.Value(z[string(key)])
	rdata := signRRset(t, name, typ, v, k, p)
	key[0] = byte(kind)
	z[string(key)] = zone.AppendValue(nil, zone.Root, v.TTL(), rdata)
}

func signRRset(t testing.TB, name zone.Name, typ zone.Type, v zone.Value, k Key, p Params) []byte {
	t.Helper()
	sk, err := newSigningKey(k)
	if err != nil {
		t.Fatal(err)
	}
	head := appendSigPrefix(nil, typ, sigLabelCount([]byte(name)), v.TTL(), uint32(p.Expiration.Unix()), uint32(p.Inception.Unix()), p.Apex)
	setSigKey(head, sk.alg, sk.tag)
	signed := sk.appendSigned(nil, appendSignedRRs(bytes.Clone(head), []byte(name.Fold()), typ, v.TTL(), v))
	head, err = sk.appendSignatures(head, signed, []int{len(signed)})
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func keyOf(t testing.TB, kind zone.Kind, owner string, typ zone.Type) string {
	t.Helper()
	name, err := zone.ParseName(owner)
	if err != nil {
		t.Fatal(err)
	}
	return string(zone.AppendKey(nil, kind, name, typ))
}

// hashedOwner is the owner of a name's NSEC3 record.
func hashedOwner(t testing.TB, name string) string {
	t.Helper()
	n, err := zone.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	var buf []byte
	h := nsec3Hash([]byte(n), nil, 0, &buf)
	return nsec3Encoding().EncodeToString(h[:]) + ".example."
}

func TestVerify_FindsDamage(t *testing.T) {
	type damage struct {
		name    string
		denial  Denial
		inflict func(t *testing.T, z memZone, keys []Key, p *Params)
		rule    Rule
		owner   string
		only    bool // no other rule is broken
	}
	flip := func(key string, at int) func(*testing.T, memZone, []Key, *Params) {
		return func(t *testing.T, z memZone, _ []Key, _ *Params) {
			v := bytes.Clone(z[key])
			if v == nil {
				t.Fatalf("no item %q", key)
			}
			v[(at+len(v))%len(v)] ^= 1
			z[key] = v
		}
	}
	drop := func(keys ...string) func(*testing.T, memZone, []Key, *Params) {
		return func(t *testing.T, z memZone, _ []Key, _ *Params) {
			for _, key := range keys {
				if z[key] == nil {
					t.Fatalf("no item %q", key)
				}
				delete(z, key)
			}
		}
	}
	at := func(when time.Time) func(*testing.T, memZone, []Key, *Params) {
		return func(_ *testing.T, _ memZone, _ []Key, p *Params) { p.Refresh = when }
	}
	for _, d := range []damage{
		{"bad RRSIG on DS", NSEC, flip(keyOf(t, zone.KindSigs, "a.example.", zone.TypeDS), -1), RuleSignature, "a.example.", false},
		{"bad RRSIG on NSEC", NSEC, flip(keyOf(t, zone.KindSigs, "a.example.", zone.TypeNSEC), -1), RuleSignature, "a.example.", false},
		{"bad RRSIG on NSEC3", NSEC3, flip(keyOf(t, zone.KindChainSigs, hashedOwner(t, "a.example."), zone.TypeNSEC3), -1), RuleSignature, hashedOwner(t, "a.example."), false},
		{"bad RRSIG on DNSKEY", NSEC, flip(keyOf(t, zone.KindSigs, "example.", zone.TypeDNSKEY), -1), RuleTrust, "example.", false},
		{"expired", NSEC, at(testTime().Add(15 * 24 * time.Hour)), RuleTime, "example.", false},
		{"inception in the future", NSEC, at(testTime().Add(-2 * time.Hour)), RuleTime, "example.", false},
		{
			"ZSK not in the DNSKEY RRset", NSEC, func(t *testing.T, z memZone, keys []Key, p *Params) {
				z.set(zone.KindMade, p.Apex, zone.TypeDNSKEY, 3600, keys[0].DNSKEY)
				resignItem(t, z, "example.", zone.TypeDNSKEY, keys[0], *p)
			}, RuleOrphan, "ns1.example.", false,
		},
		{"NSEC missing", NSEC, drop(keyOf(t, zone.KindMade, "ns1.example.", zone.TypeNSEC), keyOf(t, zone.KindSigs, "ns1.example.", zone.TypeNSEC)), RuleChain, "ns1.example.", true},
		{"NSEC3 missing", NSEC3, drop(keyOf(t, zone.KindChain, hashedOwner(t, "ns1.example."), zone.TypeNSEC3), keyOf(t, zone.KindChainSigs, hashedOwner(t, "ns1.example."), zone.TypeNSEC3)), RuleChain, "ns1.example.", true},
		{"NSEC3 of an empty non-terminal missing", NSEC3, drop(keyOf(t, zone.KindChain, hashedOwner(t, "deep.ent2.example."), zone.TypeNSEC3), keyOf(t, zone.KindChainSigs, hashedOwner(t, "deep.ent2.example."), zone.TypeNSEC3)), RuleChain, "deep.ent2.example.", true},
		{"opt-out: signed delegation has no NSEC3", NSEC3OptOut, drop(keyOf(t, zone.KindChain, hashedOwner(t, "a.example."), zone.TypeNSEC3), keyOf(t, zone.KindChainSigs, hashedOwner(t, "a.example."), zone.TypeNSEC3)), RuleChain, "a.example.", true},
		{
			"chain skips a name", NSEC, func(t *testing.T, z memZone, keys []Key, p *Params) {
				one, two := keyOf(t, zone.KindMade, "a.example.", zone.TypeNSEC), keyOf(t, zone.KindMade, "b.example.", zone.TypeNSEC)
				set := zone.Value(z[two])
				for rdata := range set.Records() {
					n, _ := zone.NameLength(rdata)
					for mine := range zone.Value(z[one]).Records() {
						m, _ := zone.NameLength(mine)
						z[one] = zone.AppendValue(nil, zone.Root, set.TTL(), append(bytes.Clone(rdata[:n]), mine[m:]...))
						break
					}
				}
				resignItem(t, z, "a.example.", zone.TypeNSEC, keys[1], *p)
			}, RuleChain, "a.example.", true,
		},
		{"RRset without RRSIG", NSEC, drop(keyOf(t, zone.KindSigs, "ns1.example.", zone.TypeA)), RuleUnsigned, "ns1.example.", true},
		{
			"type missing in an NSEC bitmap", NSEC, func(t *testing.T, z memZone, keys []Key, p *Params) {
				key := keyOf(t, zone.KindMade, "ns1.example.", zone.TypeNSEC)
				z[key] = bytes.Replace(z[key], appendBitmap(nil, []zone.Type{zone.TypeA, zone.TypeRRSIG, zone.TypeNSEC}),
					appendBitmap(nil, []zone.Type{zone.TypeNS, zone.TypeRRSIG, zone.TypeNSEC}), 1)
				resignItem(t, z, "ns1.example.", zone.TypeNSEC, keys[1], *p)
			}, RuleBitmap, "ns1.example.", true,
		},
		{
			"type missing in an NSEC3 bitmap", NSEC3, func(t *testing.T, z memZone, keys []Key, p *Params) {
				key := keyOf(t, zone.KindChain, hashedOwner(t, "ns1.example."), zone.TypeNSEC3)
				z[key] = bytes.Replace(z[key], appendBitmap(nil, []zone.Type{zone.TypeA, zone.TypeRRSIG}),
					appendBitmap(nil, []zone.Type{zone.TypeNS, zone.TypeRRSIG}), 1)
				resignItem(t, z, hashedOwner(t, "ns1.example."), zone.TypeNSEC3, keys[1], *p)
			}, RuleBitmap, hashedOwner(t, "ns1.example."), true,
		},
		{
			"TTL above the original", NSEC, func(t *testing.T, z memZone, _ []Key, _ *Params) {
				for _, kind := range []zone.Kind{zone.KindContents, zone.KindSigs} {
					v := z[keyOf(t, kind, "ns1.example.", zone.TypeA)]
					binary.BigEndian.PutUint32(v, 7200)
				}
			}, RuleTTL, "ns1.example.", false,
		},
		{
			"TTL below the original", NSEC, func(t *testing.T, z memZone, _ []Key, _ *Params) {
				for _, kind := range []zone.Kind{zone.KindContents, zone.KindSigs} {
					v := z[keyOf(t, kind, "ns1.example.", zone.TypeA)]
					binary.BigEndian.PutUint32(v, 60)
				}
			}, RuleTTL, "ns1.example.", false,
		},
		{
			"RRSIG over glue", NSEC, func(t *testing.T, z memZone, keys []Key, p *Params) {
				resignItem(t, z, "ns1.a.example.", zone.TypeA, keys[1], *p)
			}, RuleGlue, "ns1.a.example.", true,
		},
		{
			"RRSIG over NS at a delegation", NSEC, func(t *testing.T, z memZone, keys []Key, p *Params) {
				resignItem(t, z, "b.example.", zone.TypeNS, keys[1], *p)
			}, RuleGlue, "b.example.", true,
		},
		{
			"second, bad RRSIG beside a good one", NSEC, func(t *testing.T, z memZone, _ []Key, _ *Params) {
				key := keyOf(t, zone.KindSigs, "ns1.example.", zone.TypeA)
				for rdata := range zone.Value(z[key]).Records() {
					bad := bytes.Clone(rdata)
					bad[len(bad)-1] ^= 1
					z[key] = zone.AppendValue(nil, zone.Root, 3600, zone.SortRData(zone.TypeRRSIG, [][]byte{bad, rdata})...)
					break
				}
			}, RuleSignature, "ns1.example.", true,
		},
		{
			"CDS for a key that is not there", NSEC, func(t *testing.T, z memZone, keys []Key, p *Params) {
				ds, err := dsRData(p.Apex, testKey(t, algP256, 257, "other").DNSKEY, 2)
				if err != nil {
					t.Fatal(err)
				}
				z.set(zone.KindMade, p.Apex, zone.TypeCDS, 3600, ds)
				resignItem(t, z, "example.", zone.TypeCDS, keys[0], *p)
			}, RuleCDS, "example.", true,
		},
		{
			"RRSIG by an unpublished key beside a good one", NSEC, func(t *testing.T, z memZone, _ []Key, p *Params) {
				key := keyOf(t, zone.KindSigs, "ns1.example.", zone.TypeA)
				set := zone.Value(z[keyOf(t, zone.KindContents, "ns1.example.", zone.TypeA)])
				orphan := signRRset(t, mustName(t, "ns1.example."), zone.TypeA, set, testKey(t, algP256, 256, "other"), *p)
				rdata := slices.Collect(zone.Value(z[key]).Records())
				z[key] = zone.AppendValue(nil, zone.Root, 3600, zone.SortRData(zone.TypeRRSIG, append(rdata, orphan))...)
			}, RuleOrphan, "ns1.example.", true,
		},
		{
			"algorithm 15 in the DNSKEY RRset, zone signed by 13 only", NSEC, func(t *testing.T, z memZone, keys []Key, p *Params) {
				z.set(zone.KindMade, p.Apex, zone.TypeDNSKEY, 3600, keys[0].DNSKEY, keys[1].DNSKEY, testKey(t, algEd25519, 257, "new").DNSKEY)
				resignItem(t, z, "example.", zone.TypeDNSKEY, keys[0], *p)
			}, RuleUnsigned, "ns1.example.", true,
		},
		{
			"iterations differ from NSEC3PARAM", NSEC3, func(t *testing.T, z memZone, keys []Key, p *Params) {
				z.set(zone.KindMade, p.Apex, zone.TypeNSEC3PARAM, 0, []byte{1, 0, 0, 150, 0})
				resignItem(t, z, "example.", zone.TypeNSEC3PARAM, keys[1], *p)
			}, RuleChain, "", false,
		},
		{
			"glue address changed", NSEC, func(t *testing.T, z memZone, _ []Key, p *Params) {
				z.set(zone.KindContents, mustName(t, "ns1.a.example."), zone.TypeA, 3600, []byte{192, 0, 2, 99})
			}, RuleZONEMD, "example.", false,
		},
		{
			"RRSIG over an RRset that is not there", NSEC, func(t *testing.T, z memZone, _ []Key, _ *Params) {
				delete(z, keyOf(t, zone.KindContents, "xx.example.", zone.TypeAAAA))
			}, RuleOrphan, "xx.example.", false,
		},
		{
			"NSEC3 of a name that is not there", NSEC3, func(t *testing.T, z memZone, _ []Key, _ *Params) {
				for _, kind := range []zone.Kind{zone.KindContents, zone.KindSigs} {
					delete(z, keyOf(t, kind, "t.deep.ent2.example.", zone.TypeTXT))
				}
			}, RuleChain, hashedOwner(t, "t.deep.ent2.example."), false,
		},
		{
			"no DNSKEY", NSEC, drop(keyOf(t, zone.KindMade, "example.", zone.TypeDNSKEY)), RuleApex, "example.", false,
		},
		{
			"NS of the apex missing", NSEC, drop(keyOf(t, zone.KindContents, "example.", zone.TypeNS)), RuleApex, "example.", false,
		},
	} {
		t.Run(d.name, func(t *testing.T) {
			p := testParams("example.", d.denial)
			p.ZONEMD = d.rule == RuleZONEMD
			p.Refresh = testTime()
			keys := testKeys(t, algP256)
			good, _ := mustSign(t, parse(t, "example.", sampleZone), keys, p)
			z := memZone{}
			for k, v := range good {
				z[k] = bytes.Clone(v)
			}
			d.inflict(t, z, keys, &p)
			r := mustVerify(t, z, p, func(o *VerifyOptions) { o.At = p.Refresh })
			found := false
			for _, f := range r.Faults {
				found = found || f.Rule == d.rule && (d.owner == "" || strings.EqualFold(f.Owner.String(), d.owner))
				if d.only && f.Rule != d.rule {
					t.Errorf("unexpected: %v", f)
				}
			}
			if !found {
				t.Errorf("no fault of rule %q at %s: %v", d.rule, d.owner, r.Err())
			}
		})
	}
}

func mustName(t testing.TB, s string) zone.Name {
	t.Helper()
	n, err := zone.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestVerify_NoticesHighIterationsAndSalt(t *testing.T) {
	p := testParams("example.", NSEC3)
	p.Iterations, p.Salt = 150, []byte{1, 2, 3}
	z, _ := mustSign(t, parse(t, "example.", sampleZone), testKeys(t, algEd25519), p)
	r := mustVerify(t, z, p, nil)
	if !r.OK() || len(r.Notices) != 2 {
		t.Errorf("fault %v, notices %q", r.Err(), r.Notices)
	}
}

func TestVerify_FaultListIsBounded(t *testing.T) {
	p := testParams("example.", NSEC)
	z, _ := mustSign(t, parse(t, "example.", sampleZone), testKeys(t, algEd25519), p)
	for k := range maps.Clone(z) {
		if zone.Kind(k[0]) == zone.KindSigs {
			delete(z, k)
		}
	}
	r := mustVerify(t, z, p, func(o *VerifyOptions) { o.MaxFaults = 3 })
	if len(r.Faults) != 3 || r.FaultCount < 20 || r.Faults[0].Owner != p.Apex {
		t.Errorf("%d faults listed of %d, first %v", len(r.Faults), r.FaultCount, r.Faults)
	}
}

func TestVerify_ItemsOutOfOrderAreAnError(t *testing.T) {
	p := testParams("example.", NSEC)
	z, _ := mustSign(t, parse(t, "example.", sampleZone), testKeys(t, algEd25519), p)
	var items []zone.Item
	for it := z.merged(); it.Next(); {
		items = append(items, zone.Item{Key: bytes.Clone(it.Key()), Value: bytes.Clone(it.Value())})
	}
	items[3], items[4] = items[4], items[3]
	if _, err := Verify(t.Context(), zone.Slice(items...), VerifyOptions{Apex: p.Apex, At: testTime()}); err == nil {
		t.Error("no error")
	}
}

// RFC 6781, 4.1.4: the new algorithm signs before its keys are published.
func TestVerify_KeyOfAnAlgorithmRolloverMaySignUnpublished(t *testing.T) {
	p := testParams("example.", NSEC3)
	next := testKey(t, algEd25519, 256, "next")
	next.Published = false
	z, _ := mustSign(t, parse(t, "example.", sampleZone), append(testKeys(t, algP256), next), p)
	if r := mustVerify(t, z, p, nil); r.OK() || r.Faults[0].Rule != RuleOrphan {
		t.Errorf("unknown key: %v", r.Faults)
	}
	also := func(o *VerifyOptions) { o.AlsoSigning = [][]byte{next.DNSKEY} }
	if r := mustVerify(t, z, p, also); !r.OK() || r.Checked != r.Signatures {
		t.Errorf("%v, checked %d of %d", r.Err(), r.Checked, r.Signatures)
	}
	key := keyOf(t, zone.KindSigs, "ns1.example.", zone.TypeA)
	z[key][len(z[key])-1] ^= 1
	if r := mustVerify(t, z, p, also); r.FaultCount != 1 || r.Faults[0].Rule != RuleSignature {
		t.Errorf("damaged signature: %v", r.Faults)
	}
}

func TestVerify_KeyOfAnUnknownAlgorithmIsANotice(t *testing.T) {
	p := testParams("example.", NSEC)
	keys := testKeys(t, algP256)
	old := testKey(t, algEd25519, 256, "old")
	z, _ := mustSign(t, parse(t, "example.", sampleZone), keys, p)
	key := keyOf(t, zone.KindSigs, "ns1.example.", zone.TypeA)
	set := zone.Value(z[keyOf(t, zone.KindContents, "ns1.example.", zone.TypeA)])
	rdata := slices.Collect(zone.Value(z[key]).Records())
	foreign := signRRset(t, mustName(t, "ns1.example."), zone.TypeA, set, old, p)
	old.DNSKEY[3], foreign[sigAlgorithm] = 5, 5
	binary.BigEndian.PutUint16(foreign[sigTag:], zone.KeyTag(old.DNSKEY))
	z[key] = zone.AppendValue(nil, zone.Root, 3600, zone.SortRData(zone.TypeRRSIG, append(rdata, foreign))...)
	z.set(zone.KindMade, p.Apex, zone.TypeDNSKEY, 3600, keys[0].DNSKEY, keys[1].DNSKEY, old.DNSKEY)
	resignItem(t, z, "example.", zone.TypeDNSKEY, keys[0], p)
	if r := mustVerify(t, z, p, nil); !r.OK() || len(r.Notices) != 1 || !strings.Contains(r.Notices[0], "algorithm 5") {
		t.Errorf("%v, notices %q", r.Err(), r.Notices)
	}
}
