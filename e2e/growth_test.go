package e2e

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"sluice/e2e/zonegen"
)

// growth is what a step has added to the journal.
type growth struct {
	step         string
	events, bulk uint64 // bytes as stored
	units        uint64 // RRsets or signatures that it was about
	unit         string
}

// perUnit is what one of the units has added.
func (g growth) perUnit() float64 { return float64(g.events+g.bulk) / float64(max(g.units, 1)) }

// publishedVersion is what these tests read of a zone's status.
type publishedVersion struct {
	Published struct {
		Serial           uint32
		Made, Signatures uint64
	}
}

// measureGrowth runs a zone of delegations and tells what loading and signing it,
// changes, a refresh and a full signing add to the journal.
func measureGrowth(t *testing.T, names int) (steps []growth, signatures uint64) {
	t.Helper()
	g := newGenerated(t, zonegen.Config{Kind: zonegen.TLD, Names: names})
	d := &daemon{addr: freeAddr(t), data: shortDir(t)}
	begin := time.Now().UTC().Truncate(time.Second)
	d.flags = []string{"--zone", g.source(), "--clock", begin.Format(time.RFC3339)}
	d.start(t)
	zone := g.Apex()
	var was journalSize
	var serial uint32
	took := func(step, unit string, units func(publishedVersion) uint64) {
		t.Helper()
		within := time.Minute + time.Duration(names/1000)*time.Second
		await(t, step+" is published", within, func() (bool, string) {
			got, err := serialAt(d.addr, zone)
			return err == nil && got != serial, fmt.Sprintf("serial %d, %v", got, err)
		})
		st := decoded[publishedVersion](t, d.must(t, "--json", "zone", "status", zone))
		now := decoded[journalSize](t, d.must(t, "--json", "journal", "status"))
		steps = append(steps, growth{
			step: step, events: now.Events.Bytes - was.Events.Bytes, bulk: now.Bulk.Bytes - was.Bulk.Bytes,
			unit: unit, units: units(st),
		})
		last := steps[len(steps)-1]
		t.Logf("| %s | %d | %s | %d | %d | %.0f |", last.step, last.units, last.unit, last.events, last.bulk, last.perUnit())
		was, serial, signatures = now, st.Published.Serial, st.Published.Signatures
	}
	change := func(rrsets int, round uint32) {
		c := g.Config
		c.Change, c.Round, c.ModifyOnly, c.Offset = rrsets, round, true, int(round-1)*7
		g.put(t, c)
		d.must(t, "zone", "reload", zone)
	}
	made := func(st publishedVersion) uint64 { return st.Published.Made }
	took("load and sign", "signature", made)
	for i, k := range []int{1, 100, 1000} {
		change(k, uint32(i+1))
		// Each round takes back the one before: twice as many RRsets change.
		rrsets := uint64(k)
		if i > 0 {
			rrsets += []uint64{0, 1, 100}[i]
		}
		took(fmt.Sprintf("change of %d RRsets", rrsets), "RRset", func(publishedVersion) uint64 { return rrsets })
	}
	d.must(t, "clock", "move", "14h")
	d.must(t, "clock", "accept", "--reason", "the test moved it")
	took("refresh", "signature", made)
	signing := make(chan struct{})
	go func() { // of a very large zone it takes longer than a command may here
		defer close(signing)
		d.cli(t, "zone", "resign", zone, "--full")
	}()
	defer func() { <-signing }()
	took("full signing", "signature", made)
	return steps, signatures
}

// TestGrowth_FiguresHold measures on a zone of 10,000 delegations what the table
// in cli/docs/benchmarks.md says, and with SLUICE_GROWTH=N prints the rows of one
// of N.
func TestGrowth_FiguresHold(t *testing.T) {
	names := 10_000
	if text := os.Getenv("SLUICE_GROWTH"); text != "" {
		var err error
		if names, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	steps, signatures := measureGrowth(t, names)
	// Bytes a unit: at least and at most, around what the table says.
	limits := map[string][2]float64{
		"load and sign":         {60, 350},
		"change of 1 RRsets":    {3000, 20_000},
		"change of 101 RRsets":  {100, 700},
		"change of 1100 RRsets": {60, 450},
		"refresh":               {60, 300},
		"full signing":          {60, 300},
	}
	for _, s := range steps {
		limit, ok := limits[s.step]
		if !ok || s.perUnit() < limit[0] || s.perUnit() > limit[1] {
			t.Errorf("%s: %.0f bytes a %s, want %v: correct the table in cli/docs/benchmarks.md", s.step, s.perUnit(), s.unit, limit)
		}
	}
	t.Logf("%d names, %d signatures", names, signatures)
}
