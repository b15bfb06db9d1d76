package cli

import (
	"fmt"
	"strings"

	"sluice/keymgr"
	"sluice/keymgr/file"
	"sluice/signer"
	"sluice/signer/zone"
)

// readKeys reads BIND's key pairs and says what each signs: what its flags
// say, or everything where its algorithm has keys of one sort only; notices tell
// where that makes a ZSK sign the keys.
func readKeys(paths []string, apex zone.Name) (keys []signer.Key, notices []string, err error) {
	if len(paths) == 0 {
		return nil, nil, &usageError{msg: "--key is missing", hint: "make keys with dnssec-keygen, give each as --key K*.private"}
	}
	var sorts [256][2]bool // by algorithm: has a ZSK, has a KSK
	for _, path := range paths {
		path = strings.TrimSuffix(strings.TrimSuffix(path, ".private"), ".key") + ".private"
		pair, err := file.ReadPair(path)
		if err != nil {
			return nil, nil, err
		}
		if !pair.Owner.Equal(apex) {
			return nil, nil, fmt.Errorf("key %s belongs to zone %s, not to %s", path, pair.Owner, apex)
		}
		for _, k := range keys {
			if string(k.DNSKEY) == string(pair.DNSKEY) {
				return nil, nil, usagef("key %s is given twice", path)
			}
		}
		isKSK := pair.Role == keymgr.KSK
		keys = append(keys, signer.Key{
			DNSKEY: pair.DNSKEY, Signer: pair.Signer, Published: true, SignsKeys: isKSK, SignsZone: !isKSK,
		})
		sort := 0
		if isKSK {
			sort = 1
		}
		sorts[pair.DNSKEY[3]][sort] = true
	}
	for i := range keys {
		if has := sorts[keys[i].DNSKEY[3]]; !has[0] || !has[1] {
			keys[i].SignsKeys, keys[i].SignsZone = true, true
		}
	}
	for algorithm, has := range sorts {
		if has[0] && !has[1] {
			notices = append(notices, fmt.Sprintf(
				"no KSK of algorithm %s is given (flags 257): its ZSKs sign the DNSKEY RRset, too", keymgr.AlgorithmName(uint8(algorithm))))
		}
	}
	return keys, notices, nil
}
