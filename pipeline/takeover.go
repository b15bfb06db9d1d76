package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

// AdoptKeys takes over keys that were imported, as their former signer and
// the world have them.
type AdoptKeys struct {
	IDs []string // of all keys that wait
}

// Lane implements Command.
func (AdoptKeys) Lane() Lane { return SigningLane }

// Identity implements Command.
func (c AdoptKeys) Identity() string { return identity("adopt", c) }

func (AdoptKeys) command() {}

// TakeoverPlan is how a zone goes over from its former signer to this one.
type TakeoverPlan struct {
	Zone string        `json:"zone"`
	Keys []TakeoverKey `json:"keys"`
	// Rollovers is those of the former signer that go on here, and the way to
	// the first DS where nobody has seen it yet.
	Rollovers []TakeoverRoll `json:"rollovers,omitempty"`
	// DS is what the parent has, a sentence; empty where nobody knows.
	DS string `json:"ds,omitempty"`
	// Wanted is the IDs of the keys that the parent is to have DS records of.
	Wanted []string `json:"wanted,omitempty"`
	// Serial is the highest that the public servers show: published ones stand
	// above it.
	Serial *uint32 `json:"serial,omitempty"`
	// Notes tells what was found, and how it was read.
	Notes []string `json:"notes,omitempty"`
	// Refused says why the zone is not taken over, and what to do.
	Refused string `json:"refused,omitempty"`
}

// TakeoverKey is a key and how it stands in the first signed instance.
type TakeoverKey struct {
	ID        string         `json:"id"`
	Role      string         `json:"key_role"`
	Tag       uint16         `json:"tag"`
	Algorithm uint8          `json:"algorithm"`
	State     keymgr.State   `json:"state"`
	Since     *time.Time     `json:"since,omitempty"` // by the former signer's notes
	Life      *event.KeyLife `json:"life,omitempty"`
}

// TakeoverRoll is a rollover that is taken over.
type TakeoverRoll struct {
	Kind  keymgr.Kind `json:"kind"`
	Old   []string    `json:"old,omitempty"`
	New   []string    `json:"new,omitempty"`
	Step  int         `json:"step"`
	Text  string      `json:"text"`            // what that step does
	Since *time.Time  `json:"since,omitempty"` // from when on its wait counts
}

// readLives says how imported keys stand by the notes of their former signer.
func readLives(keys []event.Key, now time.Time) {
	for i := range keys {
		l := keys[i].Life
		if l == nil {
			continue
		}
		state, notes := keymgr.ReadLife(l, keymgr.Role(keys[i].Role), now)
		l.State, l.Notes = string(state), append(l.Notes, notes...)
	}
}

// sightOfFormer asks what the world has of a zone that is to be taken over:
// the parent's DS, and what the public servers show.
func (e *Engine) sightOfFormer(ctx context.Context, apex zone.Name, p Policy) *keymgr.Observation {
	if e.cfg.Observe == nil {
		return nil
	}
	servers := observe.At(p.PublicNameServers())
	obs := e.cfg.Observe(ctx, observe.Question{
		Zone: apex, Servers: servers, Find: len(servers) == 0, Tags: true,
		Parent: observe.At(p.ParentNameServers()), Now: e.clock.Now(), Fresh: true,
	})
	return &obs
}

// formerly is what a take-over goes by.
type formerly struct {
	keymgr.Takeover
	ks     keymgr.KeySet       // with what the parent has
	parent *event.DSObserved   // nil where it says nothing that counts
	serial *uint32             // the highest that the public servers show
	obs    *keymgr.Observation // nil where nobody can be asked
}

// takeOver says how keys are taken over.
func takeOver(ks keymgr.KeySet, p Policy, k keymgr.Known, apex zone.Name, obs *keymgr.Observation) formerly {
	f := formerly{ks: ks, obs: obs}
	if obs != nil {
		nameKeys(obs, apex, ks.Keys)
		if f.parent = DSChange(nil, *obs); f.parent != nil {
			f.ks = keymgr.Evolve(ks, event.Event{Time: k.Now, Facts: f.parent})
		}
		f.serial = highestSerial(obs.Zone)
	}
	k.Observation = obs
	f.Takeover = f.ks.TakeOver(p.Rollovers(), k)
	return f
}

// highestSerial is the highest serial that servers show (RFC 1982).
func highestSerial(seen []keymgr.Seen) *uint32 {
	var highest *uint32
	for _, s := range seen {
		if s.Error != "" {
			continue
		}
		if highest == nil || zone.Serial(*highest).Before(zone.Serial(s.Serial)) {
			n := s.Serial
			highest = &n
		}
	}
	return highest
}

// doAdopt takes keys over, once each that signs has proved itself.
func (e *Engine) doAdopt(ctx context.Context, s State) ([]event.Facts, error) {
	p, m, err := e.moment(s)
	if err != nil {
		return nil, err
	}
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	obs := e.sightOfFormer(ctx, apex, p)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := takeOver(s.Keys, p, s.known(p, m), apex, obs)
	// Where the zone is passed through, mayTurn has judged the keys.
	if f.Refused != "" && !s.Added.Facts.Force && s.Published == nil {
		return nil, fmt.Errorf("the keys are not taken over: %s; else: sluice zone remove %s, then add it with --force", f.Refused, s.Name)
	}
	var do []event.Facts
	if f.parent != nil && DSChange(s.ParentDS, *obs) != nil {
		do = append(do, f.parent)
	}
	if n := f.serial; n != nil && (s.SerialFloor == nil || zone.Serial(*s.SerialFloor).Before(zone.Serial(*n))) {
		do = append(do, &event.SerialRaised{Floor: *n, Reason: "the zone's public servers show it"})
	}
	do = append(do, f.Do...)
	return do, e.prove(ctx, s.Keys, f.Do)
}

// plan tells a take-over.
func (f formerly) plan(name string, now time.Time) TakeoverPlan {
	t := TakeoverPlan{Zone: name, Keys: []TakeoverKey{}, Serial: f.serial, Notes: f.Notes, Refused: f.Refused}
	if f.parent != nil {
		t.DS = observedText(f.parent)
	}
	after := f.ks
	for _, facts := range f.Do {
		after = keymgr.Evolve(after, event.Event{Time: now, Facts: facts})
	}
	t.Wanted = after.DS.Wanted
	for _, k := range after.Keys {
		key := TakeoverKey{ID: k.ID, Role: k.Role, Tag: k.Tag, Algorithm: k.Algorithm, State: k.State, Life: k.Life}
		at := map[keymgr.State]time.Time{
			keymgr.Published: k.Published, keymgr.Active: k.Activated, keymgr.Retired: k.Retired, keymgr.Removed: k.Removed,
		}[k.State]
		if at.Before(now) {
			key.Since = timeOrNil(at)
		}
		t.Keys = append(t.Keys, key)
	}
	for _, r := range after.Rollovers {
		t.Rollovers = append(t.Rollovers, TakeoverRoll{
			Kind: r.Kind, Old: r.Old, New: r.New, Step: r.Step, Text: r.StepText(), Since: timeOrNil(r.Elsewhere),
		})
	}
	return t
}

// PlanTakeover says how a zone would be taken over, and adds nothing: no key
// is kept either. Errors: as those of AddZone.
func (e *Engine) PlanTakeover(ctx context.Context, z NewZone) (TakeoverPlan, error) {
	n, p, err := e.wanted(&z)
	if err != nil {
		return TakeoverPlan{}, err
	}
	keys, public, err := e.lookAtFiles(ctx, n, z.Import)
	if err != nil {
		return TakeoverPlan{}, err
	}
	f, err := e.planned(ctx, n, p, keys, public)
	return f.plan(n.Fold().String(), e.clock.Now()), err
}

// lookAtFiles reads key files, and keeps nothing: keys of ours, and public ones
// of other signers.
func (e *Engine) lookAtFiles(ctx context.Context, apex zone.Name, files []KeyFile) (keys, public []event.Key, err error) {
	ours, others := publicOf(files)
	if keys, err = e.readFiles(ctx, apex, ours, false); err == nil {
		public, err = readPublic(apex, others)
	}
	return keys, public, err
}

// planned is how keys would be taken over.
func (e *Engine) planned(ctx context.Context, apex zone.Name, p Policy, keys, public []event.Key) (formerly, error) {
	now := e.clock.Now()
	ks := keymgr.Evolve(keymgr.KeySet{}, event.Event{Time: now, Facts: &event.KeyImported{Keys: keys}})
	ks = keymgr.Evolve(ks, event.Event{Time: now, Facts: &event.KeyImported{Keys: public, Foreign: true}})
	obs := e.sightOfFormer(ctx, apex, p)
	if err := ctx.Err(); err != nil {
		return formerly{}, err
	}
	return takeOver(ks, p, State{}.known(p, Moment{Now: now}), apex, obs), nil
}

// mayTakeOver refuses keys with which the world would take the zone for bogus.
func (e *Engine) mayTakeOver(ctx context.Context, apex zone.Name, p Policy, keys, public []event.Key) error {
	if p.Mode() != ModeSign || len(keys) == 0 {
		return nil
	}
	f, err := e.planned(ctx, apex, p, keys, public)
	if err != nil || f.Refused == "" {
		return err
	}
	return errorState("zone %s is not added: %s; to see all: --dry-run, to add it all the same: --force", apex.Fold(), f.Refused)
}

// TakesOver is the kind of a planned step that takes keys over.
const TakesOver keymgr.Kind = "take-over"

// plannedTakeover says how imported keys will be taken over, by their notes.
func plannedTakeover(s State, now time.Time) []PlannedStep {
	if !s.Keys.Imports() {
		return nil
	}
	var parts []string
	for _, k := range s.Keys.InState(keymgr.Generated) {
		state := keymgr.Active
		if k.Life != nil {
			state = keymgr.State(k.Life.State)
		}
		parts = append(parts, fmt.Sprintf("%s %d %s", strings.ToUpper(k.Role), k.Tag, state))
	}
	return []PlannedStep{{
		Kind: TakesOver, Earliest: now, After: "the parent and the public servers were asked",
		Text: "the keys are taken over, by the former signer's notes: " + strings.Join(parts, ", "),
	}}
}

// waitingKeys is the IDs of the keys that wait, sorted.
func waitingKeys(ks keymgr.KeySet) []string {
	return keyIDs(slices.DeleteFunc(ks.InState(keymgr.Generated), func(k keymgr.Key) bool { return k.Foreign }))
}

// describeLife tells events of keys that come from a former signer, or go to
// another; "" for others.
func describeLife(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.KeyAdopted:
		parts := make([]string, 0, len(f.Keys))
		for _, k := range f.Keys {
			parts = append(parts, k.ID+" "+k.State)
		}
		text := "taken over as the former signer and the world have them, those that sign proved: " + strings.Join(parts, ", ")
		if len(f.Notes) > 0 {
			text += "; " + oneLine(strings.Join(f.Notes, "; "))
		}
		return text
	case *event.KeyExported:
		return "private part given out: " + f.ID
	}
	return ""
}

// lifeNotes tells how the notes of former signers were read.
func lifeNotes(keys []event.Key) string {
	var parts []string
	for _, k := range keys {
		if l := k.Life; l != nil {
			text := fmt.Sprintf("%d noted as %s", k.Tag, l.State)
			if len(l.Notes) > 0 {
				text += " (" + strings.Join(l.Notes, "; ") + ")"
			}
			parts = append(parts, text)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "; " + oneLine(strings.Join(parts, ", "))
}

// fills reports whether an imported key does what its role is for, by its
// former signer's notes: one that is only about to go does.
func fills(k keymgr.Key) bool {
	if k.Foreign {
		return false
	}
	if !k.Imported || k.Life == nil || k.State != keymgr.Generated {
		return true
	}
	return slices.Contains([]keymgr.State{keymgr.Active, keymgr.Published, keymgr.Retired}, keymgr.State(k.Life.State))
}

// ExportKey gives the private part of a key out, in BIND's format with what the
// next signer has to know of it. That it did stands in the journal first.
// Errors: ErrNotFound, ErrState where the keystore gives no keys out.
func (e *Engine) ExportKey(ctx context.Context, actor event.Actor, name, id string) (keymgr.KeyFiles, error) {
	if err := e.keepsKeys(); err != nil {
		return keymgr.KeyFiles{}, err
	}
	s, p, m, err := e.zoneMoment(name)
	if err != nil {
		return keymgr.KeyFiles{}, err
	}
	k, ok := s.Keys.ByID(id)
	if !ok {
		return keymgr.KeyFiles{}, fmt.Errorf("key %s of zone %s: %w", id, s.Name, ErrNotFound)
	}
	if k.Foreign {
		return keymgr.KeyFiles{}, errorState("key %s is another signer's: its private part was never here", id)
	}
	exporter, ok := e.keystore.(keymgr.Exporter)
	if !ok || k.Keystore != e.keystore.Name() {
		return keymgr.KeyFiles{}, errorState("key %s is in keystore %s, which gives no private keys out: a key on a token cannot leave it", id, k.Keystore)
	}
	if !k.Destroyed.IsZero() {
		return keymgr.KeyFiles{}, errorState("the private part of key %s was deleted at %s", id, k.Destroyed.Format(time.RFC3339))
	}
	k.Life = s.Keys.LifeOf(k, p.Rollovers(), s.known(p, m))
	files, err := exporter.Export(ctx, s.Name, k.Key)
	if errors.Is(err, keymgr.ErrNoKey) {
		err = fmt.Errorf("%w: %w", ErrState, err)
	}
	if err != nil {
		return keymgr.KeyFiles{}, err
	}
	_, err = e.changeKeys(ctx, actor, name, func(State, Policy, Moment) ([]event.Facts, error) {
		return []event.Facts{&event.KeyExported{ID: id}}, nil
	})
	if err != nil {
		clear(files.Private)
		return keymgr.KeyFiles{}, err
	}
	return files, nil
}
