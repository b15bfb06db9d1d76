package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/keymgr"
	"sluice/pipeline"
)

// pageNames walks a list in pages of n and names what is on each.
func pageNames[T any](t *testing.T, c *Client, path string, n int, name func(T) string) [][]string {
	t.Helper()
	var pages [][]string
	query := url.Values{"limit": {fmt.Sprint(n)}}
	for query != nil {
		list, next, err := fetchPage[T](t.Context(), c, path, query)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, one := range list {
			names = append(names, name(one))
		}
		pages = append(pages, names)
		query = next
	}
	return pages
}

func TestPages_ZonesComeByName(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"d.example", "b.example", "a.example", "e.example", "c.example"} {
		r.add(t, name)
	}
	name := func(z pipeline.ZoneSummary) string { return z.Name }
	want := [][]string{{"a.example.", "b.example."}, {"c.example.", "d.example."}, {"e.example."}}
	if diff := cmp.Diff(want, pageNames(t, r.client, "/zones", 2, name)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]string{{"a.example.", "b.example.", "c.example.", "d.example.", "e.example."}},
		pageNames(t, r.client, "/zones", 5, name)); diff != "" {
		t.Errorf("a list that just fits has no further page: %s", diff)
	}
}

func TestPages_StayRightWhileZonesComeAndGo(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"b.example", "d.example", "f.example"} {
		r.add(t, name)
	}
	first, next, err := fetchPage[pipeline.ZoneSummary](t.Context(), r.client, "/zones", url.Values{"limit": {"2"}})
	if err != nil || len(first) != 2 {
		t.Fatalf("%v, %v", first, err)
	}
	if err := r.client.RemoveZone(t.Context(), "d.example", false); err != nil { // that the cursor names
		t.Fatal(err)
	}
	r.add(t, "a.example") // before it
	r.add(t, "e.example") // behind it
	rest, _, err := fetchPage[pipeline.ZoneSummary](t.Context(), r.client, "/zones", next)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, z := range rest {
		names = append(names, z.Name)
	}
	if diff := cmp.Diff([]string{"e.example.", "f.example."}, names); diff != "" {
		t.Error(diff)
	}
}

func TestZones_AreFoundByStatePolicyAndNotices(t *testing.T) {
	r := newRig(t)
	r.add(t, "a.example")
	r.add(t, "b.example")
	if _, err := r.client.SetMaintenance(t.Context(), "b.example", SetMaintenance{Enabled: true, Reason: "move"}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		q    pipeline.ZoneQuery
		want []string
	}{
		{pipeline.ZoneQuery{}, []string{"a.example.", "b.example."}},
		{pipeline.ZoneQuery{State: "published"}, []string{"a.example.", "b.example."}},
		{pipeline.ZoneQuery{State: "halted"}, nil},
		{pipeline.ZoneQuery{Policy: "default"}, []string{"a.example.", "b.example."}},
		{pipeline.ZoneQuery{Policy: "other"}, nil},
		{pipeline.ZoneQuery{Severity: "warning"}, []string{"b.example."}},
		{pipeline.ZoneQuery{Severity: "alarm"}, nil},
		{pipeline.ZoneQuery{After: "a.example."}, []string{"b.example."}},
		{pipeline.ZoneQuery{Limit: 1}, []string{"a.example."}},
	} {
		zones, err := r.client.FindZones(t.Context(), test.q)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, z := range zones {
			names = append(names, z.Name)
		}
		if diff := cmp.Diff(test.want, names); diff != "" {
			t.Errorf("%+v: %s", test.q, diff)
		}
	}
}

func TestPages_KeysAndBackupsGoOnBehindTheirCursor(t *testing.T) {
	r := newRig(t)
	for _, zone := range []string{"a.example", "b.example"} {
		r.add(t, zone)
		for range 2 {
			if _, err := r.client.GenerateKey(t.Context(), zone, NewKey{Role: keymgr.KSK}); err != nil {
				t.Fatal(err)
			}
		}
	}
	keys, err := r.client.Keys(t.Context(), "a.example")
	if err != nil || len(keys) < 3 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	var ids []string
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	pages := pageNames(t, r.client, "/zones/a.example/keys", 2, func(k keymgr.Key) string { return k.ID })
	if diff := cmp.Diff(ids, slices.Concat(pages...)); diff != "" {
		t.Error(diff)
	}

	all, err := r.client.Backups(t.Context(), "", true)
	if err != nil {
		t.Fatal(err)
	}
	first, next, err := fetchPage[pipeline.BackupKey](t.Context(), r.client, "/backups", url.Values{"missing": {"true"}, "limit": {"2"}})
	if err != nil || len(first) != 2 {
		t.Fatalf("%v, %v", first, err)
	}
	// The keys of the first page leave the list before the second is asked for.
	_, err = r.client.MarkBackup(t.Context(), pipeline.BackupRequest{Zones: []string{"a.example"}, Keys: []string{first[0].ID, first[1].ID}})
	if err != nil {
		t.Fatal(err)
	}
	next.Set("limit", "100")
	rest, _, err := fetchPage[pipeline.BackupKey](t.Context(), r.client, "/backups", next)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all[2:], rest); diff != "" {
		t.Error(diff)
	}
}

func TestPages_HistoryGoesBack(t *testing.T) {
	r := newRig(t)
	r.add(t, "example.com")
	walk := func(q pipeline.HistoryQuery) (seqs []uint64) {
		err := r.client.History(t.Context(), "example.com", q, func(e Event) error {
			seqs = append(seqs, e.Seq)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return seqs
	}
	all := walk(pipeline.HistoryQuery{})
	if len(all) < 5 {
		t.Fatalf("events %v", all)
	}
	if diff := cmp.Diff(all[len(all)-3:], walk(pipeline.HistoryQuery{Limit: 3})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(all[:2], walk(pipeline.HistoryQuery{Before: all[2]})); diff != "" {
		t.Error(diff)
	}
	var pages []uint64
	query := url.Values{"limit": {"2"}}
	for query != nil {
		page, next, err := r.client.historyPage(t.Context(), "example.com", query)
		if err != nil {
			t.Fatal(err)
		}
		var seqs []uint64
		for _, e := range page {
			seqs = append(seqs, e.Seq)
		}
		pages, query = append(seqs, pages...), next
	}
	if diff := cmp.Diff(all, pages); diff != "" {
		t.Error(diff)
	}
}

func TestNextPage_ReadsLinks(t *testing.T) {
	for header, want := range map[string]string{
		"": "",
		`</api/v1/zones?cursor=abc&limit=2>; rel="next"`: "abc",
		`</x>; rel="prev", </y?cursor=d>; rel="next"`:    "d",
		`</x?cursor=no>; rel="prev"`:                     "",
		`no link`:                                        "",
	} {
		res := &http.Response{Header: http.Header{"Link": {header}}}
		if got := nextPage(res).Get("cursor"); got != want {
			t.Errorf("Link %q: cursor %q, want %q", header, got, want)
		}
	}
}
