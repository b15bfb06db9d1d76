package event

func catalogSettings() CatalogSettings {
	return CatalogSettings{
		Groups: []CatalogGroup{{Group: "nsec3", Policy: "dense"}}, Policy: "default", MemberSource: "192.0.2.1:53^transfer.",
		MaxMembers: 100000, MaxRemovals: 10, MaxRemovalsPercent: 10, RemovalDelay: 604800,
	}
}

func membership() Membership {
	return Membership{
		Catalog: "catalog.example.", CatalogID: "00000000000000aa", Label: "m1", Group: "nsec3", Serial: 7,
		Source: "192.0.2.1:53^transfer.", Policy: "dense",
	}
}

func catalogSamples() []Facts {
	return []Facts{
		&CatalogAdded{Name: "catalog.example.", ID: testZone, Kind: CatalogConsumed, Settings: catalogSettings()},
		&CatalogChanged{Name: "catalog.example.", ID: testZone, Settings: CatalogSettings{Policies: []string{"default", "dense"}}},
		&CatalogRemoved{Name: "catalog.example.", ID: testZone, Keep: true},
		&CatalogHeld{Loaded: 8, Serial: 7, Members: 200, Gone: 200, Limit: 20},
		&CatalogApproved{Loaded: 8, Serial: 7, Gone: 200, Reason: "they went to another signer"},
		&MemberListed{Membership: membership(), Reset: true, Former: "old.example."},
		&MemberUnlisted{Catalog: "catalog.example.", Serial: 8, Due: 1700000000, Approved: true},
	}
}

func catalogVariants() map[string]Facts {
	m := membership()
	return map[string]Facts{
		"zone.added-member": &ZoneAdded{Name: "example.", ID: testZone, Source: m.Source, Policy: m.Policy, Member: &m},
	}
}
