package pipeline

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

// maxPublic bounds a file of public keys.
const maxPublic = 1 << 20

// readPublic reads the public keys of files.
func readPublic(apex zone.Name, files []KeyFile) (keys []event.Key, err error) {
	for _, f := range files {
		if f.Role != "" {
			return nil, fmt.Errorf("%w: the role of another signer's key follows from its flags", ErrInvalid)
		}
		found, err := readPublicFile(apex, f.Path)
		if err != nil {
			return nil, fmt.Errorf("%w: read public keys %q: %w", ErrInvalid, f.Path, err)
		}
		for _, k := range found {
			if !slices.ContainsFunc(keys, func(o event.Key) bool { return o.ID == k.ID }) {
				keys = append(keys, k)
			}
		}
	}
	return keys, nil
}

func readPublicFile(apex zone.Name, path string) ([]event.Key, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // opened for reading
	text, err := io.ReadAll(io.LimitReader(file, maxPublic+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxPublic {
		return nil, fmt.Errorf("larger than %d bytes", maxPublic)
	}
	return keymgr.ReadPublic(text, apex.Fold())
}

// publicOf splits key files by what they hold.
func publicOf(files []KeyFile) (private, public []KeyFile) {
	for _, f := range files {
		if f.Public {
			public = append(public, f)
		} else {
			private = append(private, f)
		}
	}
	return private, public
}

// sameAlgorithms refuses keys of another signer with algorithms that the zone
// is not signed with here.
func sameAlgorithms(keys []event.Key, ours []uint8) error {
	for _, k := range keys {
		if !slices.Contains(ours, k.Algorithm) {
			return errorState("key %s (tag %d) of another signer has algorithm %d, and the zone is signed here with %s: all signers need the same "+
				"algorithms (RFC 8901, 4); exchange the algorithm on one side first, here: sluice key roll ZONE algorithm",
				k.ID, k.Tag, k.Algorithm, numbers(ours))
		}
	}
	return nil
}

func numbers(list []uint8) string {
	words := make([]string, 0, len(list))
	for _, n := range list {
		words = append(words, fmt.Sprint(n))
	}
	return strings.Join(words, ", ")
}

// importPublic takes up public keys of other signers. Those of ours, which
// stand in their DNSKEY RRset too, are passed over.
func (e *Engine) importPublic(ctx context.Context, actor event.Actor, r *runner, files []KeyFile) ([]keymgr.Key, error) {
	apex, err := apexOf(r.snapshot())
	if err != nil {
		return nil, err
	}
	found, err := readPublic(apex, files)
	if err != nil {
		return nil, err
	}
	var from, ids []string
	for _, f := range files {
		from = append(from, f.Path)
	}
	_, err = e.changeKeys(ctx, actor, r.snapshot().Name, func(s State, p Policy, _ Moment) ([]event.Facts, error) {
		if p.Mode() != ModeSign {
			return nil, errorState("zone %s is not signed here: its policy says signer.mode = %q", s.Name, p.Mode())
		}
		fresh, err := freshPublic(s, p, found)
		if err != nil {
			return nil, err
		}
		ids = nil
		for _, k := range fresh {
			ids = append(ids, k.ID)
		}
		return []event.Facts{&event.KeyImported{Keys: fresh, From: strings.Join(from, " "), Foreign: true}}, nil
	})
	if err != nil {
		return nil, err
	}
	var keys []keymgr.Key
	for _, id := range ids {
		if k, ok := r.snapshot().Keys.ByID(id); ok {
			keys = append(keys, k)
		}
	}
	return keys, nil
}

// freshPublic is those public keys that the zone does not have yet, where they
// may come in.
func freshPublic(s State, p Policy, found []event.Key) ([]event.Key, error) {
	var fresh []event.Key
	have := 0
	for _, k := range s.Keys.Keys {
		if k.Foreign && k.State != keymgr.Removed {
			have++
		}
	}
	for _, k := range found {
		known, ok := s.Keys.ByID(k.ID)
		switch {
		case !ok, known.Foreign && known.State == keymgr.Removed:
			fresh = append(fresh, k)
		case !known.Foreign && known.State == keymgr.Removed:
			return nil, errorState("key %s (tag %d) is one of ours, which was removed: have the other signer take it out", k.ID, k.Tag)
		}
	}
	if len(fresh) == 0 {
		return nil, errorState("all of these keys are here already: sluice key list %s", s.Name)
	}
	if n := have + len(fresh); n > keymgr.MaxForeign {
		return nil, errorState("zone %s would have %d keys of other signers, at most %d are published", s.Name, n, keymgr.MaxForeign)
	}
	ours := s.Keys.Algorithms()
	if len(s.Keys.Signing()) == 0 {
		ours = []uint8{firstAlgorithm(s.Keys.Keys, p)}
	}
	return fresh, sameAlgorithms(fresh, ours)
}

// firstAlgorithm is what a zone will be signed with that is not yet.
func firstAlgorithm(keys []keymgr.Key, p Policy) uint8 {
	for _, k := range keys {
		if k.State != keymgr.Removed && !k.Foreign {
			return k.Algorithm
		}
	}
	return p.Algorithm()
}

// removeForeign begins the way out of a key of another signer, or takes out at
// once what was never published.
func removeForeign(s State, p Policy, m Moment, k keymgr.Key) ([]event.Facts, error) {
	if k.State == keymgr.Generated && !slices.ContainsFunc(s.Keys.Rollovers, func(r keymgr.Rollover) bool { return r.Concerns(k.ID) }) {
		return []event.Facts{&event.KeyRemoved{IDs: []string{k.ID}}}, nil
	}
	plan, err := s.Keys.PlanLeave(k.ID)
	if err != nil {
		return nil, err
	}
	return s.Keys.Begin(plan, p.Rollovers(), s.known(p, m))
}

// PublishKey has a key that waits stand by in the DNSKEY RRset, so that it can
// sign at once when it is needed. Errors: ErrNotFound, ErrState.
func (e *Engine) PublishKey(ctx context.Context, actor event.Actor, name, id string) (ZoneStatus, error) {
	return e.changeKeys(ctx, actor, name, func(s State, p Policy, m Moment) ([]event.Facts, error) {
		if _, ok := s.Keys.ByID(id); !ok {
			return nil, fmt.Errorf("key %s of zone %s: %w", id, s.Name, ErrNotFound)
		}
		if p.Mode() != ModeSign {
			return nil, errorState("zone %s is not signed here: its policy says signer.mode = %q", s.Name, p.Mode())
		}
		if err := s.Keys.MayStandBy(id); err != nil {
			return nil, err
		}
		if p.Rollovers().Backup && len(s.Keys.Unsaved([]string{id})) > 0 {
			return nil, errorState("key %s is not marked as backed up, and key-manager.require-backup wants that before it is used: "+
				"copy the keystore, then: sluice key backup mark %s %s", id, s.Name, id)
		}
		if unproved := s.Keys.Unproved([]string{id}, m.Workers.Provers); len(unproved) > 0 {
			return nil, errorState("key %s %s", id, keymgr.UnprovedText(unproved))
		}
		do := []event.Facts{&event.KeyPublished{IDs: []string{id}}}
		if err := s.Keys.MayBecome(do, s.known(p, m)); err != nil {
			return nil, errorState("key %s cannot be published: %v", id, err)
		}
		return do, nil
	})
}

// foreignNotices tells what is wrong with keys of other signers.
func foreignNotices(s State, m Moment) []Notice {
	var out []Notice
	for _, k := range s.Keys.Keys {
		if !k.Foreign || k.State != keymgr.Generated || slices.ContainsFunc(s.Keys.Rollovers, func(r keymgr.Rollover) bool { return r.Concerns(k.ID) }) {
			continue
		}
		if ours := s.Keys.Algorithms(); len(ours) > 0 && !slices.Contains(ours, k.Algorithm) {
			out = append(out, Notice{
				Severity: severityWarning, Code: NoticeForeignAlgorithm,
				Text: fmt.Sprintf("key %s of another signer is not published: it has algorithm %d, and the zone is signed here with %s (RFC 8901, 4)", k.ID, k.Algorithm, numbers(ours)),
				Hint: fmt.Sprintf("exchange the algorithm on one side, or: sluice key remove %s %s", s.Name, k.ID),
			})
		}
	}
	if o := m.Sights.Observation; o != nil {
		out = append(out, strangersOf(s, o)...)
	}
	return out
}

// strangersOf tells of servers of another signer that lack keys of ours which
// sign: what caches have from there does not validate what we sign.
func strangersOf(s State, o *keymgr.Observation) []Notice {
	var out []Notice
	for _, at := range o.Zone {
		if at.Error != "" || !s.Keys.OtherSigner(at) {
			continue
		}
		var lacks []string
		for _, k := range s.Keys.Signing() {
			if k.SignsZone() && k.InRRset() && !slices.Contains(at.Keys, k.ID) {
				lacks = append(lacks, fmt.Sprintf("%s (tag %d)", k.ID, k.Tag))
			}
		}
		if len(lacks) > 0 {
			out = append(out, Notice{
				Severity: severityAlarm, Code: NoticeForeignLacksKeys,
				Text: fmt.Sprintf("name server %s belongs to another signer, and its DNSKEY RRset lacks keys that sign here: %s", serverText(at), strings.Join(lacks, ", ")),
				Hint: "validators that have the keys from there take answers from here for bogus; have its signer import the DNSKEY RRset that is published here",
			})
		}
	}
	return few(out)
}
