package event

// accessSamples holds the facts about access and proposals, all members set.
func accessSamples() []Facts {
	return []Facts{
		&AccessGranted{Name: "ada", Roles: []string{"operator", "reviewer"}, SHA256: hashOf(5), Expires: 1700000000},
		&AccessWithdrawn{Name: "ada"},
		&AccessRefused{
			Why: RefusedRole, Method: "POST", Route: "/zones/{zone}/reset", Role: "operator",
			Peer: "192.0.2.7", Peers: 3, Count: 12, Since: 1700000000,
		},
		&AccessUsed{Request: "POST /zones/example.com./reload?full=true"},
		&ReviewProposed{
			Action: ProposeRollback, Stage: StageLoaded, Instance: 8, Digest: hashOf(3), Serial: 7, Target: "7", Reason: "bad delegation",
		},
		&ReviewRecalled{Action: ProposeApprove, Stage: StageSigned, Proposal: 17, Reason: "not this one"},
	}
}
