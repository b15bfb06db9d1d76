package api

import (
	"net/http"
	"slices"

	"sluice/pipeline"
)

// daemonRoutes are about the process.
func daemonRoutes() []Route {
	return tagged(
		"daemon",
		get("/health", "getHealth", RoleViewer, "Whether the daemon is well; 409 where it is not.",
			document(Health{}, "it is well"), (*server).health),
		change("POST", "/reload", "reloadConfig", RoleOperator, "Read config and policies again: all or nothing.",
			nil, document(pipeline.Reloaded{}, "what took effect"), (*server).reloadConfig),
		get("/openapi.json", "getOpenAPI", RoleViewer, "This document.",
			Answer{Status: http.StatusOK, Form: FormFile, Media: mediaJSON, Text: "the OpenAPI document"}, (*server).openAPI),
		get("/clock", "getClock", RoleViewer, "How the daemon's clock is.",
			document(pipeline.ClockStatus{}, "the clock"), (*server).clock),
		change("POST", "/clock/accept", "acceptClock", RoleAdmin, "Trust the clock as it is.",
			ClockAcceptance{}, document(pipeline.ClockStatus{}, "the clock"), (*server).acceptClock),
		change("POST", "/clock/move", "moveClock", RoleAdmin, "Move the clock of a rehearsal.",
			ClockMove{}, document(pipeline.ClockStatus{}, "the clock"), (*server).moveClock),
	)
}

// zoneRoutes are about zones as such.
func zoneRoutes() []Route {
	status := document(pipeline.ZoneStatus{}, "the zone's status")
	return tagged(
		"zones",
		get("/zones", "listZones", RoleViewer, "The zones, by name.",
			paged([]pipeline.ZoneSummary{}, "zone summaries"), (*server).listZones,
			slices.Concat(zoneFilters(), pageParams())...),
		change("POST", "/zones", "addZone", RoleOperator, "Add a zone, which is loaded, signed and published from then on.",
			pipeline.NewZone{}, created(pipeline.ZoneStatus{}, "the zone's status"), (*server).addZone),
		planning(change("POST", "/takeover", "planTakeover", RoleOperator,
			"How a zone would go over from its former signer; nothing is changed.",
			pipeline.NewZone{}, document(pipeline.TakeoverPlan{}, "the plan"), (*server).planTakeover)),
		get("/zones/{zone}", "getZone", RoleViewer, "How a zone is.",
			status, (*server).showZone),
		change("PATCH", "/zones/{zone}", "changeZone", RoleOperator, "Change a zone's source or policy, or tell what that would do.",
			pipeline.ZoneChange{}, document(pipeline.ZonePlan{}, "what changes"), (*server).changeZone),
		change("DELETE", "/zones/{zone}", "removeZone", RoleAdmin, "Stop serving a zone; its history and keys stay.",
			nil, done(), (*server).removeZone, yesNo("force", "though a DS is seen at the parent"),
			text("reason", "why, for the history"),
			Param{Name: "at", Type: NumberParam, Text: "only where source and policy were not changed after this sequence"}),
		get("/zones/{zone}/await", "awaitZone", RoleViewer, "Wait until the zone is at rest.",
			lines(pipeline.ZoneStatus{}, "progress, then the zone's status"), (*server).awaitZone),
	)
}

func zoneFilters() []Param {
	return []Param{
		text("state", "only zones in this state"),
		text("policy", "only zones bound to this policy"),
		{
			Name: "notices", Type: TextParam, Text: "only zones with a notice that is at least so severe",
			Values: []string{"info", "warning", "alarm"},
		},
	}
}

// liveRoutes have the daemon do something for a zone now.
func liveRoutes() []Route {
	return tagged(
		"zones",
		change("POST", "/zones/{zone}/reload", "reloadZone", RoleOperator, "Load the zone now.",
			nil, askedFor(), (*server).reloadZone, yesNo("full", "take everything, whatever the serial"),
			yesNo("replace", "with full: put the source's contents in the place of what dynamic updates made")),
		change("POST", "/zones/{zone}/resign", "resignZone", RoleOperator, "Sign the zone now.",
			nil, askedFor(), (*server).resignZone, yesNo("full", "make all signatures anew")),
		change("POST", "/zones/{zone}/notify", "notifySecondaries", RoleOperator, "Send NOTIFY to the secondaries again.",
			nil, askedFor(), (*server).notifySecondaries),
		change("POST", "/zones/{zone}/observe", "observeZone", RoleOperator, "Ask the zone's public servers and its parent now.",
			nil, document(pipeline.ZoneStatus{}, "the zone's status, once all have answered or had their time"), (*server).observeZone),
		get("/zones/{zone}/serial", "getSerials", RoleViewer, "Which serials the source, this signer and the secondaries have.",
			document(pipeline.ZoneSerials{}, "the serials"), (*server).serials),
		change("PUT", "/zones/{zone}/serial", "raiseSerial", RoleOperator, "Make a serial the next that is published.",
			NewSerial{}, done(), (*server).raiseSerial),
	)
}

// reviewRoutes are verdicts, and the ways out of a halt.
func reviewRoutes() []Route {
	status := document(pipeline.ZoneStatus{}, "the zone's status")
	return tagged(
		"reviews",
		change("POST", "/zones/{zone}/reviews/{stage}/approve", "approve", RoleReviewer, "Approve the instance under review.",
			pipeline.NewVerdict{}, status, (*server).approve),
		change("POST", "/zones/{zone}/reviews/{stage}/reject", "reject", RoleReviewer, "Reject the instance under review.",
			pipeline.NewVerdict{}, status, (*server).reject),
		change("POST", "/zones/{zone}/reviews/{stage}/override", "override", RoleOperator, "Let the instance through that halted the zone.",
			pipeline.NewDecision{}, status, (*server).override),
		change("POST", "/zones/{zone}/reset", "resetZone", RoleOperator, "End a halt, and drop what led to it.",
			pipeline.NewDecision{}, status, (*server).reset),
		change("POST", "/zones/{zone}/maintenance", "setMaintenance", RoleOperator, "Block new work on a zone, or let it go on.",
			SetMaintenance{}, status, (*server).maintenance),
	)
}

// versionRoutes are about the instances of a zone that the journal holds.
func versionRoutes() []Route {
	return tagged(
		"versions",
		change("POST", "/zones/{zone}/rollback", "rollBack", RoleOperator,
			"Publish an earlier version's content anew; without confirmation of DS and NS differences only the plan.",
			pipeline.RollbackRequest{}, document(pipeline.RollbackPlan{}, "the plan; `done` says whether it is done"), (*server).rollback),
		change("POST", "/zones/{zone}/release", "releaseZone", RoleOperator, "End the hold that a rollback left.",
			Reason{}, document(pipeline.ZoneStatus{}, "the zone's status"), (*server).release),
		get("/zones/{zone}/dump", "dumpZone", RoleViewer, "A version of the zone as a zone file.",
			whole("text/dns", "the zone file"), (*server).dump,
			yesNo("loaded", "the loaded version, unsigned"),
			Param{Name: "serial", Type: SerialParam, Text: "the version with this serial"},
			moment("at", "the version of that time")),
		get("/zones/{zone}/diff", "diffVersions", RoleViewer, "What went and came between two versions.",
			lines(pipeline.DiffLine{}, "diff lines"), (*server).diff,
			Param{Name: "from", Type: TextParam, Needed: true, Text: "a serial, l12, s14, seq:N or a time"},
			Param{Name: "to", Type: TextParam, Needed: true, Text: "a serial, l12, s14, seq:N or a time"}),
		get("/zones/{zone}/verify", "verifyZone", RoleViewer, "Verify every signature that is published.",
			lines(Report{}, "progress, then the report"), (*server).verifyZone),
		get("/zones/{zone}/check", "checkZone", RoleViewer, "Run the built-in checks on what is loaded.",
			lines(pipeline.ZoneCheck{}, "progress, then what was found"), (*server).checkZone),
		get("/zones/{zone}/replay", "replayZone", RoleViewer, "Rebuild a zone from its events, and compare each version.",
			lines(pipeline.ReplayStep{}, "progress, and the versions met"), (*server).replay,
			Param{Name: "to", Type: TextParam, Text: "where to stop: a serial, seq:N or a time"},
			yesNo("verify", "compute every digest from the records")),
	)
}

// historyRoutes are about events.
func historyRoutes() []Route {
	follow := func(path, id, summary string) Route {
		r := get(path, id, RoleViewer, summary, liveEvents(), (*server).tail,
			text("from", "a sequence or an RFC 3339 time to begin at; absent: new events only"))
		r.Headers = []Param{{Name: "Last-Event-ID", Type: NumberParam, Text: "the last sequence that was received; it goes before `from`"}}
		return r
	}
	history := lines(Event{}, "events, the newest last")
	history.Paged = true
	return tagged(
		"events",
		get("/zones/{zone}/history", "getHistory", RoleViewer, "The events of a zone.",
			history, (*server).history,
			moment("since", "not before"), moment("until", "not after"),
			Param{Name: "type", Type: TextParam, Many: true, Text: "only events of this type"},
			yesNo("evidence", "with what each event can be checked by"),
			Param{Name: "limit", Type: LimitParam, Text: "the newest so many; absent: all"},
			text("cursor", "where the page ends, from the Link of the one with newer events")),
		follow("/zones/{zone}/events", "followZone", "The events of a zone as they come."),
		follow("/events", "followAll", "The events of all zones as they come."),
	)
}
