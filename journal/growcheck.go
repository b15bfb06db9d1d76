package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// probeStream is made and removed to see whether a cluster takes streams of as
// many replicas as are wished.
const probeStream = "SLUICE_PROBE"

// checkBefore makes every check that can be made before anything is copied. It
// reports whether an earlier Grow was interrupted, which goes on.
func (g *growth) checkBefore(ctx context.Context) (resumed bool, err error) {
	report, err := Verify(ctx, g.old, VerifyOptions{Chunks: true, Progress: func(seq, last uint64) {
		g.cfg.Progress("verify", CopyProgress{Stream: eventsStream, Done: seq, Last: last})
	}})
	if err != nil {
		return false, err
	}
	if report.FaultCount > 0 {
		f := report.Faults[0]
		return false, g.check("journal", false, "event %d: %s (%d faults): sluice journal verify lists them; restore a backup first", f.Seq, f.What, report.FaultCount)
	}
	st, err := g.old.Status(ctx)
	if err != nil {
		return false, err
	}
	g.report.Events, g.report.Bytes = report.Events, st.Events.Bytes+st.Bulk.Bytes
	if err := g.check("journal", true, "sound: %d events, %d chunks, %d bytes in both streams", report.Events, report.Chunks, g.report.Bytes); err != nil {
		return false, err
	}
	if err := g.check("server", true, "nats-server %s, messages of up to %d bytes", g.to.nc.ConnectedServerVersion(), g.to.nc.MaxPayload()); err != nil {
		return false, err
	}
	if err := g.checkReplicas(); err != nil {
		return false, err
	}
	if resumed, err = g.checkNames(ctx); err != nil {
		return false, err
	}
	if err := g.checkSync(ctx); err != nil {
		return false, err
	}
	if err := g.checkSpace(ctx); err != nil {
		return false, err
	}
	if resumed {
		return true, nil
	}
	return false, g.probe(ctx)
}

// checkReplicas settles how many servers shall hold the journal.
func (g *growth) checkReplicas() error {
	cluster := g.to.nc.ConnectedClusterName()
	n := g.cfg.Remote.Replicas
	if n == 0 {
		if n = 1; cluster != "" {
			n = clusterReplicas
		}
	}
	g.report.Replicas = n
	switch {
	case n > 1 && cluster == "":
		return g.check("replicas", false, "%d are wished, but %s is in no cluster: give it routes to others first, or wish 1", n, g.to.where())
	case n == 1:
		return g.check("replicas", true, "1: the journal is lost with its server")
	case n%2 == 0:
		return g.check("replicas", false, "%d are wished: an even number is no safer than one less; wish 3 or 5", n)
	}
	return g.check("replicas", true, "%d in cluster %s", n, cluster)
}

// checkNames sees to it that nothing stands where the streams will.
func (g *growth) checkNames(ctx context.Context) (resumed bool, err error) {
	found := 0
	for _, want := range g.old.streams() {
		info, err := g.to.info(ctx, want.Name)
		if errors.Is(err, errNotFound) {
			if err := g.checkSubjects(ctx, want.Subjects[0]); err != nil {
				return false, err
			}
			continue
		}
		if err != nil {
			return false, err
		}
		found++
		meta := info.Config.Metadata
		switch {
		case meta[identityKey] != g.old.identity:
			return false, g.check("names", false, "there is a stream %s already, of journal %q: choose another cluster or account", want.Name, meta[identityKey])
		case meta[copyKey] == "" && g.mark.Mode != moved:
			return false, g.check("names", false, "stream %s of this journal is there already and in use: two stores would go on by themselves; find out which one is meant", want.Name)
		case info.Config.Replicas != g.report.Replicas:
			return false, g.check("names", false, "the unfinished copy of stream %s has %d replicas, not %d: go on with --replicas %d, or remove it (nats stream rm %s)",
				want.Name, info.Config.Replicas, g.report.Replicas, info.Config.Replicas, want.Name)
		}
	}
	switch found {
	case 0:
		return false, g.check("names", true, "free")
	case 2:
		return true, g.check("names", true, "an unfinished copy of this journal is there: it goes on")
	}
	return false, g.check("names", true, "an earlier attempt made one of the two streams: it goes on")
}

// checkSubjects refuses a server on which another stream takes the journal's
// subjects.
func (g *growth) checkSubjects(ctx context.Context, subject string) error {
	body, err := json.Marshal(map[string]string{"subject": subject})
	if err != nil {
		return err
	}
	m, err := g.to.ask(ctx, "$JS.API.STREAM.NAMES", body)
	if err != nil {
		return err
	}
	var answer struct {
		Streams []string  `json:"streams"`
		Error   *apiError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("list streams: %w", err)
	}
	if answer.Error != nil {
		return g.check("names", false, "JetStream does not answer: %s", answer.Error.Description)
	}
	if len(answer.Streams) > 0 {
		return g.check("names", false, "stream %s takes the subjects %s: choose another cluster or account", strings.Join(answer.Streams, ", "), subject)
	}
	return nil
}

// checkSync looks whether each server syncs every write.
func (g *growth) checkSync(ctx context.Context) error {
	if g.cfg.Synced == nil {
		return g.check("sync", true, "not seen from here: each server's config must say sync_interval: always, else acknowledged events are lost with the power")
	}
	ok, seen, err := g.cfg.Synced(ctx)
	if err != nil {
		return err
	}
	return g.check("sync", ok, "%s", seen)
}

// checkSpace compares the account's limit with what is to come.
func (g *growth) checkSpace(ctx context.Context) error {
	var account *jetstream.AccountInfo
	err := g.to.insist(ctx, func(ctx context.Context) (err error) {
		account, err = g.to.js.AccountInfo(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("ask for the account's limits: %w", err)
	}
	limit, used := account.Limits.MaxStore, account.Store
	if limit <= 0 {
		return g.check("space", true, "the account has no limit; each server needs %d bytes", g.report.Bytes)
	}
	need := g.report.Bytes * uint64(g.report.Replicas)
	if free := uint64(max(limit, 0)) - min(used, uint64(max(limit, 0))); free < need {
		return g.check("space", false, "the account has %d bytes left, the journal takes %d in %d replicas: raise its max_file", free, need, g.report.Replicas)
	}
	return g.check("space", true, "%d bytes of the account's %d are used, %d come", used, limit, need)
}

// probe makes a stream with as many replicas and removes it again.
func (g *growth) probe(ctx context.Context) error {
	err := g.to.insist(ctx, func(ctx context.Context) error {
		_, err := g.to.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: probeStream, Storage: jetstream.FileStorage, Replicas: g.report.Replicas, MaxMsgs: 1,
			Description: "made by sluice cluster grow, and removed again",
		})
		return err
	})
	if err == nil {
		err = g.awaitReplicas(ctx, probeStream)
	}
	derr := g.to.insist(context.WithoutCancel(ctx), func(ctx context.Context) error {
		if err := g.to.js.DeleteStream(ctx, probeStream); !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
		return nil
	})
	if err == nil {
		err = derr
	}
	if err != nil {
		return errors.Join(g.check("cluster", false, "it does not hold a stream of %d replicas: %v", g.report.Replicas, err), err)
	}
	return g.check("cluster", true, "it holds streams of %d replicas, all current", g.report.Replicas)
}

// awaitReplicas waits until every replica of the streams is current.
func (g *growth) awaitReplicas(ctx context.Context, streams ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 6*g.to.timeout)
	defer cancel()
	tick := time.NewTicker(copyWait)
	defer tick.Stop()
	for _, stream := range streams {
		for {
			info, err := g.to.info(ctx, stream)
			lagging := lagging(info)
			if err == nil && len(lagging) == 0 {
				break
			}
			if err != nil && !errors.Is(err, ErrUnreachable) {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for the replicas of stream %s: %w (%v)", stream, ctx.Err(), lagging)
			case <-tick.C:
			}
		}
	}
	return nil
}

// lagging names the replicas of a stream that do not have all of it.
func lagging(info *jetstream.StreamInfo) (names []string) {
	if info == nil || info.Config.Replicas < 2 {
		return nil
	}
	if info.Cluster == nil || info.Cluster.Leader == "" {
		return []string{"no leader"}
	}
	for _, r := range info.Cluster.Replicas {
		if !r.Current || r.Offline {
			names = append(names, r.Name)
		}
	}
	if missing := info.Config.Replicas - 1 - len(info.Cluster.Replicas); missing > 0 {
		names = append(names, fmt.Sprintf("%d not known", missing))
	}
	return names
}
