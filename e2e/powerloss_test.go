package e2e

import (
	"encoding/json"
	"math/rand/v2" //nolint:depguard // when the power fails is no secret
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"sluice/e2e/zonegen"
)

// noReviews keeps a daemon from listening where another one does.
var noReviews = []string{"--review-loaded", "", "--review-signed", ""}

// lastEvent is the sequence of the last event that a daemon has.
func lastEvent(t *testing.T, d *daemon) uint64 {
	t.Helper()
	var st struct {
		Events struct {
			LastSeq uint64 `json:"last_seq"`
		}
	}
	if err := json.Unmarshal([]byte(d.must(t, "journal", "status", "--json")), &st); err != nil {
		t.Fatal(err)
	}
	return st.Events.LastSeq
}

// The power fails while a zone changes: what the disk has then is what was
// flushed to it, and of what was written and not flushed what chance leaves. All
// that was acknowledged before is there, and the daemon goes on.
func TestPowerLoss_AcknowledgedIsThere(t *testing.T) {
	t.Parallel()
	rounds := 5
	if long() {
		rounds = 100
	}
	g := newGenerated(t, zonegen.Config{Kind: zonegen.TLD, Names: 1500})
	zone := g.Apex()
	disk := newLossyDisk(t, 768<<20)
	d := startDaemonIn(t, disk.format(), "--zone", g.source())
	d.awaitServed(t, zone)
	chance := rand.New(rand.NewPCG(5, 8))
	changes := uint32(0)
	for round := range rounds {
		seen := published{serial: d.awaitServed(t, zone)}
		if raw := axfrBytes(t, d.addr, zone); serialIs(d.addr, zone, seen.serial) {
			seen.axfr = raw
		}
		events := lastEvent(t, d)
		seen.events = d.must(t, "zone", "history", zone, "--json")
		image := filepath.Join(shortDir(t), "image")
		var shown, last atomic.Uint32 // the serial that is served, and at the moment was
		shown.Store(seen.serial)
		failed := disk.fail(1+chance.IntN(150), image, chance, func() { last.Store(shown.Load()) })
		done, watched := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(watched)
			for {
				select {
				case <-done:
					return
				default:
				}
				if serial, err := serialAt(d.addr, zone); err == nil {
					shown.Store(serial)
				}
			}
		}()
		var err error
		for fails := false; !fails; {
			changes++
			g.change(t, 30, changes)
			r := d.cli(t, "zone", "reload", zone)
			select {
			case err = <-failed:
				fails = true
			default:
				if r.code != 0 {
					t.Fatalf("round %d: %v", round, r)
				}
			}
		}
		close(done)
		<-watched
		if err != nil {
			t.Fatal(err)
		}
		if at := last.Load(); at != seen.serial {
			seen.serial, seen.axfr = at, nil
		}
		checkImage(t, round, image, zone, events, seen)
		if t.Failed() {
			return
		}
	}
}

// startDaemonIn starts a daemon with its data in a mounted file system.
func startDaemonIn(t *testing.T, dir string, flags ...string) *daemon {
	t.Helper()
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t), flags: append(append([]string(nil), noReviews...), flags...)}
	d.start(t)
	return d
}

// checkImage starts a daemon on what the power left.
func checkImage(t *testing.T, round int, image, zone string, events uint64, seen published) {
	t.Helper()
	dir := mountImage(t, image)
	d := startDaemonIn(t, dir)
	checkSurvived(t, round, d, zone, seen)
	if now := lastEvent(t, d); now < events {
		t.Errorf("round %d: %d events of %d are left", round, now, events)
	}
	d.must(t, "journal", "verify")
	d.must(t, "zone", "replay", zone, "--verify")
	serial := d.awaitServed(t, zone)
	d.must(t, "zone", "resign", zone)
	d.awaitChange(t, zone, serial)
	d.stop()
	unmount(t, dir)
	if err := os.Remove(image); err != nil {
		t.Error(err)
	}
}
