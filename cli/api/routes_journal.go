package api

import (
	"sluice/journal"
	"sluice/pipeline"
)

func journalRoutes() []Route {
	return tagged(
		"journal",
		get("/journal", "getJournal", RoleViewer, "What the journal holds, and how far its projections are.",
			document(pipeline.JournalStatus{}, "the journal's status"), (*server).journalStatus),
		change("POST", "/journal/compact", "compactJournal", RoleOperator, "Apply retention now, or tell what would go.",
			pipeline.CompactQuery{}, lines(pipeline.CompactReport{}, "progress, then the compaction"), (*server).compactJournal),
		get("/journal/verify", "verifyJournal", RoleViewer, "Read the whole journal and report what is wrong.",
			lines(journal.VerifyReport{}, "progress, then the report"), (*server).verifyJournal,
			Param{Name: "checkpoint", Type: TextParam, Many: true, Text: "a signed note that was kept outside"},
			text("key", "the public audit key; absent: the daemon's own")),
		get("/journal/backup", "backupJournal", RoleAdmin, "The events behind a position, or all, with their chunks.",
			whole("application/octet-stream", "a stream that `sluice journal backup` reads"), (*server).backupJournal,
			text("stream", "identity of the stream that the position is of"),
			Param{Name: "seq", Type: NumberParam, Text: "sequence of the last event that is there already"},
			text("hash", "its record hash")),
		change("POST", "/journal/backups", "recordBackup", RoleAdmin, "Note that a copy of the journal was made.",
			pipeline.BackupDone{}, done(), (*server).recordBackup),
	)
}

func auditRoutes() []Route {
	head := document(pipeline.AuditHead{}, "the head")
	return tagged(
		"audit",
		get("/audit/head", "getAuditHead", RoleViewer, "The newest signed checkpoint of the journal.", head, (*server).auditHead),
		change("POST", "/audit/checkpoints", "makeCheckpoint", RoleAuditor, "Make a checkpoint now.", nil, head, (*server).seal),
		change("POST", "/audit/cosignatures", "cosign", RoleAuditor, "Hand over the newest checkpoint with signatures of witnesses.",
			Cosigning{}, head, (*server).cosign),
		get("/audit/export", "exportAudit", RoleAuditor, "Events with their proofs, for a verifier who has nothing else.",
			whole("application/x-tar", "the files of the export"), (*server).auditExport,
			Param{Name: "zone", Type: TextParam, Many: true, Text: "only events of this zone"},
			moment("since", "not before"), moment("until", "not after"),
			yesNo("chunks", "with the contents of zones"),
			yesNo("drop-sealed", "without the values of sealed fields"),
			Param{Name: "drop", Type: TextParam, Many: true, Text: "only these kinds or fields are left out"}),
	)
}

func clusterRoutes() []Route {
	return tagged(
		"workers",
		get("/cluster", "getCluster", RoleViewer, "The servers that keep the journal.",
			document(journal.ClusterStatus{}, "their status"), (*server).cluster),
		get("/workers", "listWorkers", RoleViewer, "Who may join the journal, and who lives.",
			document(pipeline.WorkersStatus{}, "workers"), (*server).listWorkers),
		change("POST", "/workers", "enrollWorker", RoleAdmin, "Let a further process join the journal.",
			pipeline.NewWorker{}, created(pipeline.Enrolment{}, "the enrolment"), (*server).enrollWorker),
		change("DELETE", "/workers/{worker}", "removeWorker", RoleAdmin, "End what a worker may do.",
			nil, done(), (*server).removeWorker),
	)
}
