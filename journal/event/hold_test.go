package event

func holdSamples() []Facts {
	return []Facts{
		&ZoneHeld{
			Serial: 7, Instance: 9, Loaded: 8, ContentDigest: hashOf(3), From: 12, FromSerial: 2026010100,
			DSChanges: 2, NSChanges: 1, Reason: "yesterday's zone was right",
		},
		&ZoneReleased{Reason: "the source is corrected"},
	}
}

func holdVariants() map[string]Facts {
	return map[string]Facts{
		"instance.loaded-rollback": &InstanceLoaded{
			Source: "rollback to l8", Serial: 7, Base: 12, Manifest: manifest(), ContentDigest: hashOf(3), RRsets: 10, Records: 20,
			Rollback: 8,
		},
	}
}
