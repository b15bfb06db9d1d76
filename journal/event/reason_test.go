package event

// reasonVariants are events about zones and policies that say why.
func reasonVariants() map[string]Facts {
	const why = "apply of commit 3f2a9c1: a second provider"
	return map[string]Facts{
		"access.used-reason":  &AccessUsed{Request: "PUT /policies/web", Reason: why},
		"policy.bound-reason": &PolicyBound{Zone: "example.", Source: "file", Policy: "web", SHA256: hashOf(1), Text: "version = \"v1\"\n", Reason: why},
		"zone.added-reason":   &ZoneAdded{Name: "example.", ID: testZone, Source: "file", Policy: "default", Reason: why},
		"zone.changed-reason": &ZoneChanged{Source: "file2", Reason: why},
		"zone.removed-reason": &ZoneRemoved{Name: "example.", ID: testZone, Reason: why},
	}
}
