package metrics

import (
	"maps"
	"slices"

	"sluice/journal"
	"sluice/pipeline"
	"sluice/xfr"
)

// process tells how the process is.
func (s *scrape) process(m pipeline.Measurement) {
	s.set("build_info", 1, m.Version, goVersion())
	s.is("ready", m.Ready)
	s.set("alarms", float64(m.Alarms))
	s.at("clock_timestamp_seconds", m.Clock.Now)
	s.is("clock_trusted", m.Clock.Trusted)
	s.is("clock_rehearsal", m.Clock.Rehearsal)
	s.at("journal_away_since_timestamp_seconds", m.Stale)
	s.set("workers_alive", float64(m.Workers.Alive))
	for role, n := range m.Workers.Held {
		s.set("leases_held", float64(n), string(role))
	}
	for role, n := range m.Workers.Unheld {
		s.set("leases_unheld", float64(n), string(role))
	}
}

// work tells what the process has done.
func (s *scrape) work(m pipeline.Measurement) {
	c := m.Counts
	s.counts("loads_total", "load_seconds_total", c.Loads, []string{"file", "transfer", "update"}, []string{"loaded", "unchanged", "failed"})
	s.counts("signings_total", "signing_seconds_total", c.Signings, []string{string(pipeline.ModeSign)}, []string{"signed", "failed"})
	s.counts("verifications_total", "verification_seconds_total", c.Verifications, []string{""}, []string{"passed", "failed"})
	s.counts("hook_runs_total", "hook_seconds_total", c.Hooks,
		[]string{"review", "parent", "checkpoint", "alarm"}, []string{"ok", "rejected", "timeout", "not-started", "failed"})
	s.counts("updates_total", "", c.Updates, []string{""}, []string{"accepted", "unchanged", "prerequisite", "refused", "failed"})
	s.counts("probes_total", "probe_seconds_total", c.Probes, nil, nil)
	s.count("signatures_made_total", c.Made)
	for _, k := range c.Keystores {
		s.histogram("keystore_operation_seconds", k.Time, k.Keystore, k.Operation)
		s.count("keystore_errors_total", k.Errors, k.Keystore, k.Operation)
	}
	for _, k := range m.Keystores {
		s.is("keystore_up", k.Up, k.Name)
	}
	for _, c := range m.Catalogs {
		for state, n := range map[string]int{
			pipeline.MemberListed: c.Members - c.Removals, pipeline.MemberWaiting: c.Waiting, pipeline.MemberUnlisted: c.Removals,
			pipeline.MemberConflict: c.Conflicts, "failing": c.Failing,
		} {
			s.set("catalog_members", float64(n), c.Name, state)
		}
		s.is("catalog_held", c.Held, c.Name)
	}
}

// peers tells of other servers.
func (s *scrape) peers(m pipeline.Measurement) {
	in := m.Client
	taken := func(kind string, t xfr.Taken) {
		s.count("transfers_in_total", t.Whole, kind, "whole")
		s.count("transfers_in_total", t.Broken, kind, "broken")
		s.count("transfer_in_bytes_total", t.Bytes, kind)
	}
	taken("axfr", in.AXFR)
	taken("ixfr", in.IXFR)
	taken("up-to-date", in.UpToDate)
	s.count("transfers_in_total", in.Failed, "none", "broken")
	s.count("soa_queries_total", in.Asked, "answered")
	s.count("soa_queries_total", in.AskedFailed, "failed")
	s.count("notifies_out_total", in.Told, "acknowledged")
	s.count("notifies_out_total", in.Refused, "refused")
	s.count("notifies_out_total", in.Silent, "silent")
	if s.m.cfg.Published == nil {
		return
	}
	out := s.m.cfg.Published()
	sent := func(kind string, t xfr.Sent) {
		s.count("transfers_out_total", t.Whole, kind, "whole")
		s.count("transfers_out_total", t.Broken, kind, "broken")
		s.count("transfer_out_bytes_total", t.Bytes, kind)
	}
	sent("axfr", out.AXFR)
	sent("ixfr", out.IXFR)
	s.set("transfers_out_under_way", float64(out.TransfersUnderWay))
	s.count("notifies_in_total", out.Notifies, "taken")
	s.count("notifies_in_total", out.NotifiesRefused, "refused")
	s.count("updates_unsigned_total", out.UpdatesRefused)
	s.count("dns_requests_total", out.Requests)
	s.count("dns_refused_total", out.Refused)
	s.count("dns_dropped_total", out.Dropped)
	s.count("dns_faults_total", out.Faults)
	s.set("dns_connections", float64(out.OpenConns))
	s.count("dns_connections_refused_total", out.RefusedConns)
}

// journal tells of the journal and of the projection.
func (s *scrape) journal(m pipeline.Measurement) {
	s.counts("journal_appends_total", "", m.Counts.Appends, []string{""}, []string{"stored", "conflict", "no-space", "no-answer", "denied", "failed"})
	s.histogram("journal_append_seconds", m.Counts.AppendTime)
	s.counts("events_total", "", m.Counts.Events, nil, nil)
	if w := m.Written; w != nil {
		s.count("journal_written_bytes_total", w.EventBytes, "EVENTS")
		s.count("journal_written_bytes_total", w.ChunkBytes, "BULK")
	}
	s.count("projection_sequence", m.Folded)
	if j := m.Journal; j != nil {
		for name, st := range map[string]journal.StreamStatus{"EVENTS": j.Events, "BULK": j.Bulk} {
			s.count("journal_stream_bytes", st.Bytes, name)
			s.count("journal_stream_messages", st.Messages, name)
			if st.MaxBytes > 0 {
				s.set("journal_stream_limit_bytes", float64(st.MaxBytes), name)
			}
		}
		// What was folded since the journal was looked at is newer than that.
		last := max(j.Events.LastSeq, m.Folded)
		s.count("journal_last_sequence", last)
		s.count("projection_lag_events", last-m.Folded)
	}
	st := m.Store
	s.count("store_disk_bytes", st.Disk)
	s.count("store_memory_bytes", st.Memory)
	s.set("store_tables", float64(st.Tables))
	s.set("store_l0_tables", float64(st.L0))
	s.count("store_compaction_debt_bytes", st.Debt)
	s.set("store_read_amplification", float64(st.ReadAmp))
	s.count("store_compactions_total", st.Compactions)
	s.count("store_flushes_total", st.Flushes)
	s.count("store_write_stalls_total", st.Stalls)
	s.count("store_cache_hits_total", st.CacheHits)
	s.count("store_cache_misses_total", st.CacheMisses)
	if r := m.Reserve; r != nil {
		s.count("reserve_bytes", r.Bytes)
		s.count("reserve_wanted_bytes", r.Wanted)
	}
}

// sortedKeys are the keys of a map in order, so that scrapes are alike.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
