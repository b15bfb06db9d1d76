package cli

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sluice/journal/event"
)

const (
	reportZone = event.ZoneID("0123456789abcdef")
	ourVersion = "v1.2.3/0123456789abcdef"
	helpers    = "v1.2.2/fedcba9876543210"
)

// reportExport is the events of an export, without proofs: a zone that is taken
// from a server, reviewed, signed by two workers, and let out; a key, a rollover
// and an export.
func reportExport(t *testing.T) fstest.MapFS {
	t.Helper()
	jane := event.Actor{Name: "jane", Door: "web", Role: "reviewer"}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var lines strings.Builder
	n, prev := map[event.ZoneID]uint64{}, map[event.ZoneID]event.Hash{}
	add := func(zone event.ZoneID, actor event.Actor, epoch uint64, cause uint64, facts event.Facts) {
		e := event.New(at.Add(time.Duration(n[reportZone]+n[event.Instance])*time.Minute), zone, actor, facts)
		n[zone]++
		e.Version, e.N, e.Epoch, e.Cause, e.Prev = 1, n[zone], epoch, cause, prev[zone]
		line, err := event.Encode(&e)
		if err != nil {
			t.Fatal(err)
		}
		prev[zone] = event.RecordHash(line)
		fmt.Fprintf(&lines, "{\"seq\":%d,\"event\":%s}\n", n[reportZone]+n[event.Instance], line)
	}
	key := event.Key{ID: "00112233aabbccdd", Role: "zsk", Algorithm: 13, Tag: 7, DNSKEY: "AQADDQ==", Keystore: "file"}
	digest := event.Hash{1, 2, 3}
	add(event.Instance, jane, 0, 0, &event.ZoneAdded{Name: "example.", ID: reportZone, Source: "192.0.2.1", Policy: "default"})
	add(reportZone, event.Program, 1, 0, &event.WorkerGranted{Worker: "west", WorkerRole: "sign", Epoch: 1})
	add(reportZone, event.Program, 0, 0, &event.KeyGenerated{Keys: []event.Key{key}})
	add(reportZone, event.Program, 0, 0, &event.KeyActivated{IDs: []string{key.ID}, Lives: []event.PlannedLife{{ID: key.ID, Seconds: 86400}}})
	add(reportZone, event.Program, 0, 0, &event.InstanceLoaded{
		Source: "192.0.2.1", Serial: 7, Peer: "192.0.2.1:53^transfer.", Transfer: "AXFR", Bytes: 100, Software: ourVersion,
		PeerIdentity: &event.PeerIdentity{Address: "192.0.2.1", Key: "transfer.", Algorithm: "hmac-sha256", Pin: "sha256:AQ=="},
	})
	add(reportZone, jane, 0, 5, &event.ReviewApproved{Stage: event.StageLoaded, Instance: 5, Digest: digest, Checker: "manual", Passed: true, Reason: "seen | <b>"})
	add(reportZone, event.Program, 1, 5, &event.InstanceSigned{
		Loaded: 5, Serial: 8, SignedDigest: digest, Made: 4, Reused: 9, NewSets: 3, Dropped: 2, DenialChanged: 1, Software: ourVersion,
		Parts: []event.SignedParts{{Worker: "east", Parts: 2, Signatures: 1, Software: helpers}},
	})
	add(reportZone, event.Program, 0, 7, &event.InstancePublished{Signed: 7, Loaded: 5, Serial: 8, SignedDigest: digest, Software: ourVersion})
	add(reportZone, event.Program, 0, 0, &event.RolloverAdvanced{Rollover: 3, Step: 1, Name: "publish", Wait: &event.Wait{
		Formula: "Ipub = Dprp + TTLkey", Earliest: at.Add(time.Hour).Unix(),
	}})
	add(reportZone, event.Program, 0, 0, &event.RolloverAdvanced{Rollover: 3, Step: 2, Name: "activate"})
	add(event.Instance, event.Actor{Name: "anne", Door: "api", Role: "auditor"}, 0, 0, &event.JournalExported{Chunks: true})
	return fstest.MapFS{"events-000001.jsonl": {Data: []byte(lines.String())}}
}

// A report says of each version who and what made it, from where, and how that
// can be checked.
func TestReportMarkdown_TiesVersionsToTheirMakers(t *testing.T) {
	var b strings.Builder
	if err := reportMarkdown(reportExport(t), "not verified", &b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for what, want := range map[string]string{
		"version":  "| serial 8 from l5 of 192.0.2.1: 4 signatures made for 3 RRsets, 9 kept, 2 dropped, 1 denial records changed | signed_digest=010203",
		"makers":   "signed by west, " + ourVersion + "; let out by " + ourVersion,
		"software": "| " + ourVersion + " | 2026-01-02T03:08:05Z | 2026-01-02T03:11:05Z | 3 |",
		"server":   "| example. | 192.0.2.1 | transfer. hmac-sha256 | sha256:AQ== |",
		"person":   "| jane, web, reviewer | l5 approved by hand: seen \\| &lt;b> | cause=seq:5; digest=010203",
		"key":      "| 2026-01-02T03:07:05Z | 2026-01-03T03:07:05Z |",
		"step":     "| example. | 3 | 1, publish | 2026-01-02T03:12:05Z | Ipub = Dprp + TTLkey | 2026-01-02T04:04:05Z | 2026-01-02T03:13:05Z |",
		"access":   "| anne, api, auditor | audit export of all zones, with contents |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s: no %q in\n%s", what, want, text)
		}
	}
}

func TestReportCSV_HasRoleWorkerSoftwareAndEvidence(t *testing.T) {
	var b strings.Builder
	if err := reportCSV(reportExport(t), &b); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
	if err != nil || len(rows) != 12 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	column := func(row int, name string) string {
		for i, head := range rows[0] {
			if head == name {
				return rows[row][i]
			}
		}
		t.Fatalf("no column %s", name)
		return ""
	}
	for _, want := range []struct {
		row         int
		name, value string
	}{
		{6, "api_role", "reviewer"},
		{6, "cause", "5"},
		{7, "worker", "west"},
		{7, "software", ourVersion},
		{5, "worker", ""},
	} {
		if got := column(want.row, want.name); got != want.value {
			t.Errorf("row %d, %s: %q, want %q", want.row, want.name, got, want.value)
		}
	}
	if got := column(7, "evidence"); !strings.Contains(got, "rrsets_signed=3") || !strings.Contains(got, "part=east: 1 signatures by "+helpers) {
		t.Errorf("evidence of the signing: %s", got)
	}
}

func TestReportEvents_ObjectsSayWhatRowsDo(t *testing.T) {
	var rows, objects strings.Builder
	if err := reportCSV(reportExport(t), &rows); err != nil {
		t.Fatal(err)
	}
	if err := reportEvents(reportExport(t), jsonLines[reportedEvent](&objects)); err != nil {
		t.Fatal(err)
	}
	table, err := csv.NewReader(strings.NewReader(rows.String())).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(objects.String()), "\n")
	if len(lines) != len(table)-1 {
		t.Fatalf("%d objects, %d rows", len(lines), len(table)-1)
	}
	for i, line := range lines {
		var ev map[string]any
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			t.Fatal(err)
		}
		for at, name := range table[0] {
			cell, is := table[i+1][at], ev[strings.Replace(name, "sequence", "seq", 1)]
			if name == "evidence" {
				is = strings.Count(cell, "=") > 0 == (is != nil)
			} else if is == nil {
				is = cell == ""
			} else {
				is = fmt.Sprint(is) == cell
			}
			if is != true {
				t.Errorf("%s is %q in the row, the object is %s", name, cell, line)
			}
		}
	}
}
