package metrics

import "github.com/prometheus/client_golang/prometheus"

// prefix begins the names of all metrics but those of the Go runtime and of the
// operating system's process.
const prefix = "sluice_"

// family is one metric.
type family struct {
	name   string // without prefix
	kind   prometheus.ValueType
	help   string
	labels []string
}

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
	// histo is a histogram; it stands for prometheus.UntypedValue, which nothing
	// here is.
	histo = prometheus.UntypedValue
)

// zoneFamilies are those with a series for each zone.
func zoneFamilies() []family {
	zone := []string{"zone"}
	with := func(more ...string) []string { return append([]string{"zone"}, more...) }
	return []family{
		{"zone_info", gauge, "1 for each zone, with its policy and mode (sign, pass-through, unsigned).", with("policy", "mode")},
		{"zone_stage", gauge, "1 for where a zone stands: new, working, review, published, failed, halted or expired.", with("stage")},
		{"zone_waiting_since_timestamp_seconds", gauge, "Since when a zone waits for what zone status says.", zone},
		{"zone_serial", gauge, "SOA serial by stage: loaded, signed, published, upstream (what the server of the source said last).", with("stage")},
		{"zone_records", gauge, "Records of the published version.", zone},
		{"zone_signatures", gauge, "RRSIG records of the published version.", zone},
		{"zone_loaded_timestamp_seconds", gauge, "When the newest contents were loaded.", zone},
		{"zone_published_timestamp_seconds", gauge, "When the published version was published.", zone},
		{"zone_load_duration_seconds", gauge, "How long loading the newest contents took.", zone},
		{"zone_sign_duration_seconds", gauge, "How long signing the newest signed version took.", zone},
		{"zone_signature_expiry_timestamp_seconds", gauge, "When the first published RRSIG expires.", zone},
		{"zone_signature_due_timestamp_seconds", gauge, "When the first published RRSIG has only the policy's signature-remain-time left: by then it is to be made anew.", zone},
		{"zone_signature_alarm_timestamp_seconds", gauge, "When it is an alarm that the first published RRSIG was not made anew, by the zone's policy.", zone},
		{"zone_load_failed_timestamp_seconds", gauge, "Since when the source cannot be loaded; absent while it can.", zone},
		{"zone_sign_failed_timestamp_seconds", gauge, "When signing failed; absent once it succeeded.", zone},
		{"zone_review_pending_since_timestamp_seconds", gauge, "Since when an instance waits for a verdict, by review (loaded, signed).", with("review")},
		{"zone_notices", gauge, "What zone status tells of a zone, by severity (info, warning, alarm).", with("severity")},
		{"zone_keys", gauge, "Keys of a zone by role and state; those that were removed are not counted.", with("role", "state")},
		{"zone_servers", gauge, "Addresses of a zone's public name servers when they were last asked: current, behind (another serial) or silent.", with("state")},
		{"zone_server_oldest_serial", gauge, "Serial of the public name server that is furthest behind, and its address.", with("server")},
		{"zone_secondaries_unaware", gauge, "Secondaries that were told of the published version and have not acknowledged it.", zone},
		{"zone_ds_at_parent", gauge, "1 where the parent was last seen to have a DS, 0 where it has none; absent where it is not known.", zone},
		{"zone_ds_in_step", gauge, "1 where the parent has the DS records that it is to have, 0 where not; absent where it was told nothing yet.", zone},
		{"zone_ds_since_timestamp_seconds", gauge, "Since when zone_ds_in_step is so.", zone},
		{"zone_rollover_step", gauge, "The step that a running rollover is at, by kind and number.", with("kind", "rollover")},
		{"zone_rollover_steps", gauge, "How many steps that rollover has.", with("kind", "rollover")},
		{"zone_rollover_phase", gauge, "1 for what a running rollover waits for: do, publish, see, wait, person, backup, proof or blocked.", with("kind", "rollover", "phase")},
		{"zone_rollover_step_timestamp_seconds", gauge, "When the step began.", with("kind", "rollover")},
		{"zone_rollover_wait_timestamp_seconds", gauge, "Until when the step waits, where that is known.", with("kind", "rollover")},
		{"zone_rollover_late_timestamp_seconds", gauge, "From when on the step takes longer than it should: an hour after its wait, a day where something is to be seen. Absent where it waits for a person.", with("kind", "rollover")},
		{"zone_probe_result", gauge, "1 for what a validating resolver last said of a zone: validated, insecure (no AD), bogus, failed or silent; the worst of all names.", with("resolver", "result")},
		{"zone_probe_timestamp_seconds", gauge, "When validating resolvers were last asked about a zone.", zone},
	}
}

// fleetFamilies sum zones up. They are there whatever the config says of zones.
func fleetFamilies() []family {
	return []family{
		{"zones", gauge, "Zones by stage: new, working, review, published, failed, halted, expired.", []string{"stage"}},
		{"zones_untold", gauge, "Zones that have no series of their own: there are many, and nothing about them needs a person.", nil},
		{"zones_signatures_overdue", gauge, "Zones whose first signature was not made anew: due (past the remain-time), alarm, expired. Each counts in all that it has reached.", []string{"urgency"}},
		{"zones_ds_out_of_step", gauge, "Zones whose parent has other DS records than it is to have.", nil},
		{"zones_with_notices", gauge, "Zones of which zone status tells something, by severity (info, warning, alarm).", []string{"severity"}},
		{"zones_by_notice", gauge, "Zones that have a notice, by its code and severity: sluice help notices. Codes that no zone has are absent.", []string{"code", "severity"}},
		{"zones_probed", gauge, "Zones by what validating resolvers last said: validated, insecure, bogus, failed, silent; the worst of all resolvers.", []string{"result"}},
		{"signature_expiry_min_timestamp_seconds", gauge, "When the first published RRSIG of all zones expires, and in which zone.", []string{"zone"}},
		{"signature_alarm_min_timestamp_seconds", gauge, "When it is the first alarm that signatures were not made anew, and in which zone.", []string{"zone"}},
		{"rollovers", gauge, "Rollovers that run, by kind.", []string{"kind"}},
		{"rollovers_late", gauge, "Rollovers that take longer than they should.", nil},
		{"rollovers_stopped", gauge, "Rollovers that do not go on without a person, by phase: person, backup, proof, blocked.", []string{"phase"}},
		{"reviews_pending", gauge, "Instances that wait for a verdict, by review (loaded, signed).", []string{"review"}},
		{"review_oldest_timestamp_seconds", gauge, "Since when the one waits that waits longest, by review; absent where none does.", []string{"review"}},
	}
}

// processFamilies tell of the process.
func processFamilies() []family {
	return []family{
		{"build_info", gauge, "1, with the version of the program and of Go.", []string{"version", "goversion"}},
		{"ready", gauge, "1 where the journal was read and nothing keeps all zones from working.", nil},
		{"alarms", gauge, "Alarms of the whole process; sluice health lists them.", nil},
		{"clock_timestamp_seconds", gauge, "What the daemon's clock shows. All its times are to be compared with this one, which a rehearsal simulates.", nil},
		{"clock_trusted", gauge, "0 while the clock is not trusted: nothing is signed then.", nil},
		{"clock_rehearsal", gauge, "1 where the clock is simulated.", nil},
		{"journal_away_since_timestamp_seconds", gauge, "Since when the journal does not answer this process; absent where it does.", nil},

		{"loads_total", counter, "Loads by source (file, transfer, update) and result (loaded, unchanged, failed).", []string{"source", "result"}},
		{"load_seconds_total", counter, "Time that loads took.", []string{"source", "result"}},
		{"signings_total", counter, "Signing runs by mode (sign, pass-through, unsigned) and result (signed, failed).", []string{"mode", "result"}},
		{"signing_seconds_total", counter, "Time that signing runs took.", []string{"mode", "result"}},
		{"signatures_made_total", counter, "RRSIG records that this process made.", nil},
		{"verifications_total", counter, "Runs of the egress gate by result (passed, failed).", []string{"result"}},
		{"verification_seconds_total", counter, "Time that they took.", []string{"result"}},
		{"hook_runs_total", counter, "Hooks that ran, by hook (review, parent, checkpoint, alarm) and result (ok, rejected, timeout, not-started, failed).", []string{"hook", "result"}},
		{"hook_seconds_total", counter, "Time that hooks took.", []string{"hook", "result"}},

		{"transfers_in_total", counter, "Transfers from servers of sources, by what they sent (axfr, ixfr, up-to-date, none) and result (whole, broken).", []string{"kind", "result"}},
		{"transfer_in_bytes_total", counter, "Bytes of messages of these transfers.", []string{"kind"}},
		{"soa_queries_total", counter, "Questions to servers of sources for their serial, by result (answered, failed).", []string{"result"}},
		{"transfers_out_total", counter, "Transfers over TCP and TLS that this process sent, by kind (axfr, ixfr) and result (whole, broken).", []string{"kind", "result"}},
		{"transfer_out_bytes_total", counter, "Bytes of messages of these transfers.", []string{"kind"}},
		{"transfers_out_under_way", gauge, "Transfers that are being sent.", nil},
		{"notifies_in_total", counter, "NOTIFYs that came, by result (taken, refused).", []string{"result"}},
		{"notifies_out_total", counter, "NOTIFYs that were sent, by result (acknowledged, refused, silent).", []string{"result"}},
		{"updates_total", counter, "Signed dynamic updates that came, by result (accepted, unchanged, prerequisite, refused, failed).", []string{"result"}},
		{"updates_unsigned_total", counter, "Dynamic updates that were refused because nobody had signed them.", nil},
		{"dns_requests_total", counter, "Requests to the publication listeners.", nil},
		{"dns_refused_total", counter, "Requests that were answered without records.", nil},
		{"dns_dropped_total", counter, "Messages that were not answered.", nil},
		{"dns_faults_total", counter, "Refusals and broken transfers through a fault of this process.", nil},
		{"dns_connections", gauge, "Open TCP connections of the publication listeners.", nil},
		{"dns_connections_refused_total", counter, "TCP connections above a limit.", nil},

		{"keystore_operation_seconds", histo, "How long operations of keystores took: open, generate, prove, and sign for keys on tokens.", []string{"keystore", "operation"}},
		{"keystore_errors_total", counter, "Operations of keystores that failed.", []string{"keystore", "operation"}},
		{"keystore_up", gauge, "0 where a token that zones sign with cannot be used.", []string{"keystore"}},
		{"catalog_members", gauge, "Members of a catalog by state: listed (zones here; of a produced one, zones that it lists), waiting, unlisted (removal announced), conflict, failing.", []string{"catalog", "state"}},
		{"catalog_held", gauge, "1 where the removals of a catalog wait for a person.", []string{"catalog"}},

		{"journal_appends_total", counter, "Appends to the journal by result (stored, conflict, no-space, no-answer, denied, failed).", []string{"result"}},
		{"journal_append_seconds", histo, "How long it took until appended events were on disk.", nil},
		{"events_total", counter, "Events that this process stored, by type.", []string{"type"}},
		{"journal_written_bytes_total", counter, "Bytes that this process wrote into a stream (EVENTS, BULK).", []string{"stream"}},
		{"journal_stream_bytes", gauge, "Bytes that a stream holds.", []string{"stream"}},
		{"journal_stream_limit_bytes", gauge, "Its limit; absent without one.", []string{"stream"}},
		{"journal_stream_messages", gauge, "Messages that a stream holds.", []string{"stream"}},
		{"journal_last_sequence", gauge, "Sequence of the newest event.", nil},
		{"projection_sequence", gauge, "Sequence of the event that this process folded last.", nil},
		{"projection_lag_events", gauge, "Events that it has not folded yet.", nil},

		{"store_disk_bytes", gauge, "Size of the projection on disk.", nil},
		{"store_memory_bytes", gauge, "Memtables and block cache of the projection.", nil},
		{"store_tables", gauge, "Its sstables.", nil},
		{"store_l0_tables", gauge, "Those of them that were not compacted yet.", nil},
		{"store_compaction_debt_bytes", gauge, "Bytes that wait for compaction.", nil},
		{"store_read_amplification", gauge, "Tables that a read may have to look into.", nil},
		{"store_compactions_total", counter, "Compactions.", nil},
		{"store_flushes_total", counter, "Flushes of memtables.", nil},
		{"store_write_stalls_total", counter, "Times that writes had to wait for compactions or flushes.", nil},
		{"store_cache_hits_total", counter, "Blocks that were found in the cache.", nil},
		{"store_cache_misses_total", counter, "Blocks that were read from disk.", nil},
		{"reserve_bytes", gauge, "Room on the disk that is kept for signing.", nil},
		{"reserve_wanted_bytes", gauge, "What signing everything once more needs.", nil},

		{"workers_alive", gauge, "Processes that share the journal and told of themselves lately.", nil},
		{"leases_held", gauge, "Partitions of zones whose work this process does, by role.", []string{"role"}},
		{"leases_unheld", gauge, "Partitions whose work nobody does, by role.", []string{"role"}},

		{"probes_total", counter, "Questions to validating resolvers by result (validated, insecure, bogus, failed, silent).", []string{"resolver", "result"}},
		{"probe_seconds_total", counter, "Time until they answered.", []string{"resolver", "result"}},
	}
}
