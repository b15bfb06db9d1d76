package api

import (
	"sluice/pipeline"
	"sluice/pipeline/alarm"
)

// statusRoutes tell how everything is, and who is told of it.
func statusRoutes() []Route {
	return tagged(
		"daemon",
		get("/status", "getStatus", RoleViewer, "How everything is: what needs a person first.",
			document(pipeline.Overview{}, "the overview"), (*server).overview,
			Param{Name: "limit", Type: NumberParam, Text: "at most so many needs; 0 or absent: all"}),
		get("/alarms", "getAlarms", RoleViewer, "Who is told of what needs a person, and what they were told.",
			document(pipeline.AlarmsStatus{}, "the alarms"), (*server).listAlarms),
		change("POST", "/alarms/test", "testAlarms", RoleAdmin, "Tell everybody who is told of alarms a test.",
			nil, document([]alarm.TestResult{}, "what became of each"), (*server).testAlarms),
		get("/log-level", "getLogLevel", RoleViewer, "What the daemon logs.",
			document(LogLevel{}, "the level"), (*server).logLevel),
		change("PUT", "/log-level", "setLogLevel", RoleAdmin, "Change what the daemon logs, until it ends.",
			NewLogLevel{}, document(LogLevel{}, "the level"), (*server).setLogLevel),
	)
}
