package event

// lifeSamples are the facts of keys that come from a former signer, and go to
// another one.
func lifeSamples() []Facts {
	return []Facts{
		&KeyAdopted{
			Keys: []AdoptedKey{{
				ID: "00112233aabbccdd", State: "retired", Published: 1700000000, Activated: 1700000001, Retired: 1700000002, Removed: 1700000003,
			}},
			KeyTTL: 86400, Notes: []string{"the parent has DS 65535"},
		},
		&KeyExported{ID: "00112233aabbccdd"},
	}
}

// lifeVariants are facts with the members that concern such keys.
func lifeVariants() map[string]Facts {
	return map[string]Facts{
		"key.imported-life": &KeyImported{From: "file", Keys: []Key{{
			ID: "00112233aabbccdd", Role: "csk", Algorithm: 13, Tag: 1, DNSKEY: "AQEDDQ==", Keystore: "file", Reference: "r",
			Life: &KeyLife{
				State: "active", Notes: []string{"no state file"}, TTL: 3600, Created: 1700000000, Published: 1700000001, Activated: 1700000002,
				Retired: 1700000003, Revoked: 1700000004, Removed: 1700000005, DSPublished: 1700000006, DSRemoved: 1700000007,
				CDS: 1700000008, CDSDelete: 1700000009, Lifetime: 7776000, Predecessor: 12345, Successor: 54321, Goal: "omnipresent",
				DNSKEY: &Spread{State: "omnipresent", Since: 1700000001}, ZoneSigs: &Spread{State: "rumoured", Since: 1700000002},
				KeySigs: &Spread{State: "unretentive", Since: 1700000003}, DS: &Spread{State: "hidden"},
			},
		}}},
		"zone.added-force": &ZoneAdded{Name: "example.", ID: testZone, Source: "file", Policy: "default", Force: true},
		"rollover.started-taken": &RolloverStarted{
			Kind: "zsk", Method: "pre-publication", Old: []string{"00112233aabbccdd"}, New: []string{"8899aabbccddeeff"},
			Reason: "taken over", Step: 2, Since: 1700000000,
		},
	}
}
