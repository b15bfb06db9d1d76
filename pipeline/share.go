package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer"
	"sluice/signer/zone"
)

const (
	// shareSize is how many RRsets and empty non-terminals a range has, and how
	// many hashes a run of the chain; its hashes fit into a message.
	shareSize = 16384
	// shareLeast is what a smaller zone is cut into, so that all take part.
	shareLeast = 1024
	// shareBytes bounds the hashes of a run.
	shareBytes = 600 << 10
	// shareMemory is what sorting the hashes of a zone keeps in memory.
	shareMemory = 32 << 20
	// askStanding is how long the others are looked for.
	askStanding = 2 * time.Second
)

// helpers are the other processes that sign, where a zone is large enough to be
// shared: never one that just failed, so that whatever went wrong is not tried
// in the same way for ever.
func (e *Engine) helpers(ctx context.Context, s State, c Sign, params signer.Params) []string {
	p, err := e.boundPolicy(s)
	content := s.loaded(c.Loaded)
	if err != nil || e.cfg.Coordinator == nil || content == nil || s.SignFailure != nil || params.ZONEMD ||
		p.set.shareAbove == 0 || content.Facts.RRsets <= p.set.shareAbove {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askStanding)
	defer cancel()
	standing, err := e.cfg.Coordinator.Standing(ctx)
	if err != nil {
		e.log.WarnContext(ctx, "other workers not found: signing alone", "zone", s.Name, "error", err)
		return nil
	}
	var names []string
	for _, w := range workersIn(standing) {
		if w.name != e.worker && slices.Contains(w.about.Roles, RoleSign) {
			names = append(names, w.name)
		}
	}
	return names
}

// shared is a signing in which other processes take part.
type shared struct {
	*sharing
	state  State
	c      Sign
	params signer.Params
	hashes *zone.Sorter // nil where there is no NSEC3 chain
	edges  map[string][signer.HashSize]byte
	size   uint64
	report func(Progress)
	at     Progress
}

// signed is what a signing gave: the result, the manifest of the chunks, and who
// made them where several did.
type signed struct {
	*signer.Result
	manifest event.Manifest
	parts    []event.SignedParts
}

// signShared signs the whole zone in parts, some of them by other processes.
func (e *Engine) signShared(ctx context.Context, s State, c Sign, keys []signer.Key, params signer.Params, helpers []string, report func(Progress)) (made signed, err error) {
	x := &shared{
		sharing: newSharing(e, keys, helpers), state: s, c: c, params: params, report: report,
		edges: map[string][signer.HashSize]byte{},
		at:    Progress{Stage: "sign", Total: int64(s.loaded(c.Loaded).Facts.RRsets)}, //nolint:gosec // a count of RRsets
	}
	x.size = min(shareSize, max(shareLeast, uint64(x.at.Total)/uint64(8*(1+len(helpers))))) //nolint:gosec // as above
	if params.Denial != signer.NSEC {
		x.hashes = zone.NewSorter(e.signSpill, shareMemory)
		defer func() { err = errors.Join(err, x.hashes.Close()) }()
	}
	job, err := x.template()
	if err != nil {
		return signed{}, err
	}
	e.log.InfoContext(ctx, "signing with other workers", "zone", s.Name, "workers", helpers)
	ranges, err := x.run(ctx, func(emit func(*shareJob) error) error { return x.cut(job, emit) }, x.takeRange)
	if err != nil {
		return signed{}, err
	}
	chain, err := x.run(ctx, func(emit func(*shareJob) error) error { return x.runs(job, emit) }, x.takeRun)
	if err != nil {
		return signed{}, err
	}
	return x.finish(ctx, append(ranges, chain...))
}

// template is a job but for its part.
func (x *shared) template() (shareJob, error) {
	frame, err := x.e.shareFrame(x.state.Zone, x.params.Apex, x.c)
	job := shareJob{
		Version: shareVersion, Zone: x.state.Zone, Head: x.state.Head.Seq, Command: x.c.Identity(),
		Loaded: x.c.Loaded, Content: x.state.loaded(x.c.Loaded).Facts.ContentDigest, Base: x.c.Base,
		Params: sharedParams(x.params), Frame: frame,
	}
	for _, k := range x.keys {
		id, err := keyID(x.state.Keys, k.DNSKEY)
		if err != nil {
			return job, err
		}
		job.Keys = append(job.Keys, shareKey{
			ID: id, DNSKEY: k.DNSKEY, SignsKeys: k.SignsKeys, SignsZone: k.SignsZone, Published: k.Published, CDS: k.CDS,
		})
	}
	return job, err
}

// keyID is the ID of the key with that DNSKEY RDATA.
func keyID(ks keymgr.KeySet, dnskey []byte) (string, error) {
	for _, k := range ks.Keys {
		if rdata, err := keymgr.RData(k.Key); err == nil && bytes.Equal(rdata, dnskey) {
			return k.ID, nil
		}
	}
	return "", fmt.Errorf("key %d: %w", zone.KeyTag(dnskey), ErrNotFound)
}

// cut cuts the names of the zone into ranges.
func (x *shared) cut(job shareJob, emit func(*shareJob) error) (err error) {
	contents, err := x.e.store.Contents(x.state.Zone, x.c.Loaded)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, contents.Close()) }()
	return signer.Split(contents, x.params.Apex, x.size, func(r signer.Range) error {
		one := job
		one.Range = &r
		return emit(&one)
	})
}

// takeRange takes what was made of a range.
func (x *shared) takeRange(j *shareJob, d *shareDone) error {
	x.tell(d, int64(j.Range.RRsets)) //nolint:gosec // a count of RRsets
	for _, edge := range d.Edges {
		x.edges[string(edge.Name)] = edge.Hash
	}
	if x.hashes == nil {
		return nil
	}
	return d.hashes.each(x.hashes.Add)
}

// takeRun takes what was made of a run of the chain.
func (x *shared) takeRun(_ *shareJob, d *shareDone) error {
	x.tell(d, 0)
	return nil
}

// tell counts a part that is done.
func (x *shared) tell(d *shareDone, rrsets int64) {
	x.at.Done += rrsets
	i := slices.IndexFunc(x.at.Parts, func(p event.SignedParts) bool { return p.Worker >= d.Worker })
	x.at.Parts = slices.Clone(x.at.Parts) // readers have the former one
	if i < 0 {
		i = len(x.at.Parts)
	}
	if i == len(x.at.Parts) || x.at.Parts[i].Worker != d.Worker {
		x.at.Parts = slices.Insert(x.at.Parts, i, event.SignedParts{Worker: d.Worker})
	}
	x.at.Parts[i].Parts++
	x.at.Parts[i].Signatures += d.Made
	if d.Software != x.e.software() {
		x.at.Parts[i].Software = d.Software
	}
	x.report(x.at)
}

// runs cuts the NSEC3 chain into runs, each with the hash behind it. A chain
// that is there no more is one run.
func (x *shared) runs(job shareJob, emit func(*shareJob) error) (err error) {
	if x.hashes == nil {
		if job.Base == 0 {
			return nil
		}
		job.Chain = &shareChain{None: true}
		return emit(&job)
	}
	for _, hash := range x.edges {
		if err := x.hashes.Add(hash[:], nil); err != nil {
			return err
		}
	}
	sorted, err := x.hashes.Sort()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sorted.Close()) }()
	var first, last [signer.HashSize]byte
	run := &shareChain{}
	var hashes hashList
	n := 0
	put := func(next [signer.HashSize]byte) error {
		one, chain := job, *run
		chain.After = next
		one.Chain, one.hashes = &chain, hashes
		run, hashes, n = &shareChain{From: chain.To}, nil, 0
		return emit(&one)
	}
	for begun := false; sorted.Next(); begun = true {
		hash := [signer.HashSize]byte(sorted.Key())
		switch {
		case !begun:
			first = hash
		case hash == last:
			return fmt.Errorf("two names have the NSEC3 hash %x: change the salt", hash)
		case uint64(n) >= x.size || len(hashes) >= shareBytes: //nolint:gosec // not negative
			run.To = signer.ChainOwnerKey(x.params.Apex, hash)
			if err := put(hash); err != nil {
				return err
			}
		}
		last = hash
		hashes = hashes.add(hash[:], sorted.Value())
		n++
	}
	if err := sorted.Err(); err != nil {
		return err
	}
	return put(first)
}

// finish joins all parts, in the order of the zone, and names their chunks.
func (x *shared) finish(ctx context.Context, done []*shareDone) (signed, error) {
	var parts []*signer.Part
	var chunks []event.Chunk
	for _, d := range done {
		part, err := d.part()
		if err != nil {
			return signed{}, err
		}
		parts = append(parts, part)
		chunks = append(chunks, d.Chunks...)
	}
	e := x.e
	content, err := e.store.ContentState(x.state.Zone, x.c.Loaded)
	if err != nil {
		return signed{}, err
	}
	var former *zone.SetHash
	if x.c.Base != 0 {
		if former, err = e.store.SignedState(x.state.Zone, x.c.Base); err != nil {
			return signed{}, err
		}
	}
	res := signer.Join(x.params, content, former, parts...)
	out := newChunkSink(ctx, e.signJournal.NewChunks(x.state.Zone, x.c.Identity()))
	if err := out.putState(res.SignedState); err != nil {
		return signed{}, err
	}
	last, err := out.finish()
	if err != nil {
		return signed{}, err
	}
	m, err := e.manifest(ctx, x.state.Zone, x.c.Identity(), append(chunks, last.Chunks...))
	return signed{res, m, x.at.Parts}, err
}

// manifest names chunks that stand in BULK.
func (e *Engine) manifest(ctx context.Context, id event.ZoneID, command string, chunks []event.Chunk) (event.Manifest, error) {
	subject, err := journal.ChunkSubject(id, command)
	if err != nil {
		return event.Manifest{}, err
	}
	lists := e.signJournal.NewChunks(id, command)
	listed := false
	m, err := journal.FinishManifest(subject, func() ([]event.Chunk, error) {
		if !listed {
			listed = true
			return chunks, nil
		}
		m, err := lists.Finish(ctx)
		return m.Chunks, err
	}, func(raw []journal.RawChunk) error {
		for _, c := range raw {
			if err := lists.Put(ctx, c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return m, fmt.Errorf("store chunks: %w", err)
	}
	return m, nil
}

// PartsText tells who signed how many of a zone's parts; empty where one process
// signed all.
func PartsText(parts []event.SignedParts) string {
	if len(parts) == 0 {
		return ""
	}
	total, words := uint64(0), make([]string, 0, len(parts))
	for _, p := range parts {
		total += p.Parts
		words = append(words, fmt.Sprintf("%d by %s", p.Parts, p.Worker))
	}
	return fmt.Sprintf(", of %d parts %s", total, strings.Join(words, ", "))
}
