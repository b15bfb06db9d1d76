package pipeline

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/journal/event"
	"sluice/keymgr"
)

// NewPolicy is what PutPolicy needs.
type NewPolicy struct {
	Text   string `json:"text"` // the policy file
	Reason string `json:"reason,omitempty"`
	// DryRun tells what would change, and changes nothing.
	DryRun bool `json:"dry_run,omitempty"`
	// At, where not "", refuses where the present text has another SHA-256, in
	// hex; "none" where there is a policy of that name.
	At string `json:"at,omitempty"`
}

// NoPolicy in the place of a SHA-256 says that there is no such policy.
const NoPolicy = "none"

// PolicyPlan is what another text of a policy does.
type PolicyPlan struct {
	Name   string `json:"name"`
	Change string `json:"change"`           // added, updated, removed, unchanged
	SHA256 string `json:"sha256,omitempty"` // of the new text
	At     string `json:"at"`               // SHA-256 of the present text, or none
	Diff   string `json:"diff,omitempty"`   // lines that went and came
	// Zones are those that are bound to it.
	Zones []string `json:"zones"`
	// Effects are what it does to them.
	Effects []PolicyEffect `json:"effects,omitempty"`
	// Notices are what is allowed and may hurt.
	Notices []string `json:"notices,omitempty"`
	// Refused says why it is not possible; "" where it is.
	Refused string `json:"refused,omitempty"`
	Done    bool   `json:"done"`
}

// PolicyEffect is what a change of a policy does to some of its zones.
type PolicyEffect struct {
	Text  string   `json:"text"`
	Zones []string `json:"zones"`
}

// What a change of a policy is.
const (
	policyAdded     = "added"
	policyUpdated   = "updated"
	policyRemoved   = "removed"
	policyUnchanged = "unchanged"
)

// hasPolicyDir is ErrState where there is no folder of policies.
func (e *Engine) hasPolicyDir() error {
	if e.cfg.PolicyDir == "" {
		return fmt.Errorf("the daemon runs without --policy-dir: %w", ErrState)
	}
	return nil
}

// checkReason refuses a reason that is too long.
func checkReason(text string) error {
	if len(text) > maxReason {
		return fmt.Errorf("%w: the reason is longer than %d bytes", ErrInvalid, maxReason)
	}
	return nil
}

// position is the sequence of the event that gave a zone its source or its
// policy last.
func (s State) position() uint64 { return max(s.Policy.Seq, s.Sourced) }

// isAt refuses where source or policy changed after a sequence; 0 asks for
// nothing.
func (s State) isAt(seq uint64) error {
	if seq != 0 && s.position() != seq {
		return errorState("zone %s: its source or policy was changed meanwhile, at seq:%d; see: sluice zone history %s", s.Name, s.position(), s.Name)
	}
	return nil
}

// PutPolicy writes a policy into the policy folder and binds its zones to it,
// all or nothing: a text with a fault, or one that a zone cannot follow, changes
// nothing. Errors: ErrInvalid; ErrState without a policy folder, and where a
// zone cannot follow.
//
// What opens a way around a second person, and commands that no loaded policy
// has where the request came over the network, are refused too: both are for
// those who can write on the daemon's machine.
func (e *Engine) PutPolicy(ctx context.Context, actor event.Actor, name string, n NewPolicy) (PolicyPlan, error) {
	p, err := e.newPolicy(name, n)
	if err != nil {
		return PolicyPlan{}, err
	}
	e.policing.Lock()
	defer e.policing.Unlock()
	plan := e.policyPlan(ctx, p, actor)
	if n.At != "" && n.At != plan.At {
		return plan, errorState("policy %s was changed meanwhile: see sluice policy show %s", name, name)
	}
	if n.DryRun {
		return plan, nil
	}
	if plan.Refused != "" {
		return plan, errorState("policy %s: %s", name, plan.Refused)
	}
	path := filepath.Join(e.cfg.PolicyDir, name+".toml")
	if text, err := os.ReadFile(path); err == nil && bytes.Equal(text, p.Text) && plan.Change == policyUnchanged && len(plan.Effects) == 0 {
		plan.Done = true
		return plan, nil
	}
	if err := e.recordPolicy(ctx, actor, "PUT /policies/"+name+" sha256:"+plan.SHA256, n.Reason); err != nil {
		return plan, err
	}
	if err := writePolicy(path, p.Text); err != nil {
		return plan, errWritePolicies(err)
	}
	e.mu.Lock()
	e.policies[name] = p
	delete(e.faults, name)
	e.mu.Unlock()
	for _, s := range e.states() {
		if s.Policy.Name != name || s.Policy.SHA256 == p.SHA256 {
			continue
		}
		if err := e.rebind(ctx, actor, s.Zone, p, n.Reason); err != nil {
			return plan, err
		}
	}
	e.catalogs.poke() // members may wait for a policy
	plan.Done = true
	return plan, nil
}

// newPolicy checks what PutPolicy is asked for.
func (e *Engine) newPolicy(name string, n NewPolicy) (Policy, error) {
	if e.member() {
		return Policy{}, errorState("policies concern the whole instance: put them at the main process, which has the store; see: sluice worker list")
	}
	if err := e.hasPolicyDir(); err != nil {
		return Policy{}, err
	}
	if err := checkReason(n.Reason); err != nil {
		return Policy{}, err
	}
	if err := CheckPolicyName(name); err != nil {
		return Policy{}, err
	}
	p, err := Parse(name, []byte(n.Text))
	if err != nil {
		return Policy{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return p, nil
}

// CheckPolicyName is ErrInvalid where no policy can have that name.
func CheckPolicyName(name string) error {
	if !validPolicyName(name) || strings.HasPrefix(name, ".") {
		return fmt.Errorf("%w: policy name %q: want 1 to 64 letters, digits, dots, dashes and underscores, and no dot in front", ErrInvalid, name)
	}
	return nil
}

// recordPolicy writes down who changes a policy, and why.
func (e *Engine) recordPolicy(ctx context.Context, actor event.Actor, request, reason string) error {
	return e.appendInstance(ctx, actor, &event.AccessUsed{Request: request, Reason: reason}, func() error { return nil })
}

// policyPlan says what a text does to the zones that are bound to the policy,
// where actor puts it.
func (e *Engine) policyPlan(ctx context.Context, p Policy, actor event.Actor) PolicyPlan {
	plan := e.textPlan(p)
	if text := e.foreignCommand(p, actor); text != "" {
		plan.Refused = fmt.Sprintf("command %q is in no policy that is loaded: commands come from the daemon's machine alone; put it there, through its socket", text)
	}
	e.planZones(&plan, p, func(s State) ([]string, error) {
		texts, err := e.turnEffects(ctx, s, p)
		if before, perr := e.boundPolicy(s); err == nil && perr == nil && before.lifts(p) {
			err = errorState("zone %s: the text that it is bound to wants two persons for what this one does not: make this one another policy, "+
				"and bind the zone to it, which takes two: sluice zone set %s --policy NAME", s.Name, s.Name)
		}
		if err != nil && plan.Refused == "" {
			plan.Refused = withoutState(err)
		}
		return texts, err
	})
	return plan
}

// textPlan compares a text with that of the loaded policy of its name.
func (e *Engine) textPlan(p Policy) PolicyPlan {
	plan := PolicyPlan{
		Name: p.Name, Change: policyAdded, SHA256: hex.EncodeToString(p.SHA256[:]), At: NoPolicy, Zones: []string{}, Notices: p.Notices(),
	}
	old, known := e.policy(p.Name)
	if known {
		plan.Change, plan.At = policyUpdated, hex.EncodeToString(old.SHA256[:])
		if old.SHA256 == p.SHA256 {
			plan.Change = policyUnchanged
		} else {
			plan.Diff = lineDiff(p.Name, string(old.Text), string(p.Text))
		}
	}
	return plan
}

// planZones adds to a plan the zones that are bound to the policy, and what turn
// says of each that is bound to another text, if it gives no error.
func (e *Engine) planZones(plan *PolicyPlan, p Policy, turn func(s State) ([]string, error)) {
	effects := effects{}
	for _, s := range e.states() {
		if s.Policy.Name != p.Name {
			continue
		}
		plan.Zones = append(plan.Zones, s.Name)
		if s.Policy.SHA256 == p.SHA256 {
			continue
		}
		texts, err := turn(s)
		if err != nil {
			continue
		}
		if len(texts) == 0 {
			texts = []string{"nothing is signed again, and no key changes"}
		}
		effects.add(s.Name, texts)
	}
	plan.Effects = effects.list()
}

// withoutState is what an error says beside being ErrState.
func withoutState(err error) string {
	return strings.TrimPrefix(err.Error(), ErrState.Error()+": ")
}

// DiffPolicy says what ReloadPolicies would do to a policy and its zones; nothing
// changes. Errors: ErrInvalid for a name that no policy can have, ErrNotFound
// where there is neither such a policy nor a file, ErrState without a policy
// folder and where the file has a fault.
func (e *Engine) DiffPolicy(ctx context.Context, name string) (PolicyPlan, error) {
	if err := errors.Join(e.hasPolicyDir(), CheckPolicyName(name)); err != nil {
		return PolicyPlan{}, err
	}
	read, faults := LoadDir(e.cfg.PolicyDir)
	byPolicy := faultsByPolicy(faults)
	addDefault(read, byPolicy)
	for _, at := range []string{name, ""} {
		if fault := byPolicy[at]; fault != nil {
			return PolicyPlan{}, errorState("%v", fault)
		}
	}
	p, ok := read[name]
	if !ok {
		return e.diffGone(name, len(faults) > 0)
	}
	plan := e.textPlan(p)
	e.planZones(&plan, p, func(s State) ([]string, error) {
		texts, err := e.turnEffects(ctx, s, p)
		if err != nil {
			texts = []string{"the text that it is bound to stays: " + withoutState(err)}
		}
		return texts, nil
	})
	return plan, nil
}

// diffGone is DiffPolicy where there is no file.
func (e *Engine) diffGone(name string, faults bool) (PolicyPlan, error) {
	info, ok := e.policyInfo(name)
	if !ok {
		return PolicyPlan{}, fmt.Errorf("policy %q: %w", name, ErrNotFound)
	}
	plan := PolicyPlan{Name: name, Change: policyRemoved, At: info.SHA256, Zones: info.Zones}
	switch {
	case len(info.Zones) > 0:
		plan.Change, plan.Notices = policyUnchanged, []string{"its file is gone; it stays as long as zones are bound to it"}
	case faults:
		plan.Change, plan.Notices = policyUnchanged, []string{"its file is gone; it stays as long as other files have faults: see sluice status"}
	}
	return plan, nil
}

// foreignCommand is a command of a policy that no loaded one has, where it comes
// from elsewhere than the daemon's machine; "" where there is none.
func (e *Engine) foreignCommand(p Policy, actor event.Actor) string {
	if actor.Door == "cli" {
		return ""
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	known := map[string]bool{}
	for _, have := range e.policies {
		for _, c := range have.commands() {
			known[c] = true
		}
	}
	for _, c := range p.commands() {
		if !known[c] {
			return c
		}
	}
	return ""
}

// commands are all that the policy may have run.
func (p Policy) commands() []string {
	var out []string
	for _, hooks := range [][]Hook{p.set.loadedReview.Hooks, p.set.signedReview.Hooks, p.set.parent.Hooks} {
		for _, h := range hooks {
			out = append(out, h.Command)
		}
	}
	return out
}

// RemovePolicy removes a policy's file from the policy folder. Errors:
// ErrNotFound; ErrState without a policy folder, and while zones are bound to it.
func (e *Engine) RemovePolicy(ctx context.Context, actor event.Actor, name, reason string) error {
	if e.member() {
		return errorState("policies concern the whole instance: remove them at the main process, which has the store; see: sluice worker list")
	}
	if err := errors.Join(e.hasPolicyDir(), checkReason(reason), CheckPolicyName(name)); err != nil {
		return err
	}
	e.policing.Lock()
	defer e.policing.Unlock()
	path := filepath.Join(e.cfg.PolicyDir, name+".toml")
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if _, ok := e.policy(name); ok && name == "default" {
			return errorState("policy default is the built-in one: there is no file to remove")
		}
		return fmt.Errorf("policy %q: %w", name, ErrNotFound)
	}
	if used := e.boundTo(name); len(used) > 0 {
		return errorState("policy %s rules %d zones, %s among them: bind them to another one first: sluice zone set %s --policy NAME",
			name, len(used), used[0], used[0])
	}
	if err := e.recordPolicy(ctx, actor, "DELETE /policies/"+name, reason); err != nil {
		return err
	}
	if err := errors.Join(os.Remove(path), syncDir(e.cfg.PolicyDir)); err != nil {
		return errWritePolicies(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.policies, name)
	delete(e.faults, name)
	addDefault(e.policies, e.faults)
	return nil
}

func errWritePolicies(err error) error {
	return fmt.Errorf("write the policy folder: %w: %w; the daemon has to be allowed to write it: see sluice help operate", ErrState, err)
}

// boundTo lists the zones that a policy rules, or will once they are bound.
func (e *Engine) boundTo(name string) []string {
	var out []string
	for _, s := range e.states() {
		if s.Policy.Name == name || s.Policy.Name == "" && s.Added.Facts.Policy == name {
			out = append(out, s.Name)
		}
	}
	return out
}

// writePolicy puts a file in place at once.
func writePolicy(path string, text []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".put-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone already once it was renamed
	if err = tmp.Chmod(0o644); err == nil {
		if _, err = tmp.Write(text); err == nil {
			err = tmp.Sync()
		}
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(tmp.Name(), path), syncDir(dir))
}

// syncDir makes what was renamed or removed in a folder last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// turnEffects says what going over to another policy, or to another text of the
// same, does to a zone; an error where it cannot.
func (e *Engine) turnEffects(ctx context.Context, s State, p Policy) ([]string, error) {
	old, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	if err := e.mayTurn(ctx, s, p); err != nil {
		return nil, err
	}
	var out []string
	if old.Mode() != p.Mode() {
		out = append(out, turnText(old.Mode(), p.Mode()))
		if s.Held != nil && p.passThrough() {
			out = append(out, "the zone is "+heldText(s)+": what is published stays until it is released")
		}
	} else if old.Parameters() != p.Parameters() {
		out = append(out, fmt.Sprintf("the zone is signed again: %s becomes %s", old.Parameters(), p.Parameters()))
	}
	rolls := e.newRolls(s, old, p)
	if len(rolls) == 0 && (old.UseCSK() != p.UseCSK() || old.Algorithm() != p.Algorithm() || old.Bits() != p.Bits()) {
		rolls = []string{"the keys stay as they are; the new policy's algorithm and roles are for keys that are made from here on"}
	}
	return append(out, rolls...), nil
}

// newRolls says which rollovers another policy asks for now that the present one
// does not.
func (e *Engine) newRolls(s State, old, p Policy) []string {
	if p.Mode() != ModeSign || len(s.Keys.Signing()) == 0 {
		return nil
	}
	_, m, err := e.moment(s)
	if err != nil {
		return nil
	}
	var before, out []string
	for _, want := range otherKeys(s, old) {
		before = append(before, string(want.Kind)+old.beginning(want.Kind))
	}
	for _, due := range s.Dues(old, m) {
		if !due.At.After(m.Now) {
			before = append(before, string(due.Kind)+old.beginning(due.Kind))
		}
	}
	wanted := otherKeys(s, p)
	for _, due := range s.Dues(p, m) {
		if !due.At.After(m.Now) {
			wanted = append(wanted, wantedRoll{due.Kind, "its key is older than the policy allows"})
		}
	}
	for _, want := range wanted {
		how := p.beginning(want.Kind)
		if !slices.Contains(before, string(want.Kind)+how) {
			out = append(out, fmt.Sprintf("a rollover of %s %s: %s", want.Kind, how, want.Reason))
		}
	}
	return out
}

// beginning says how a rollover that is wanted begins.
func (p Policy) beginning(kind keymgr.Kind) string {
	if p.Rollovers().Auto(kind).Start {
		return "begins by itself"
	}
	return "waits for a person (sluice key roll ZONE " + string(kind) + ")"
}

// effects collects what happens to zones, by what it is, in the order in which
// it was met.
type effects struct {
	texts []string
	zones map[string][]string
}

func (f *effects) add(zone string, texts []string) {
	for _, text := range texts {
		if f.zones == nil {
			f.zones = map[string][]string{}
		}
		if f.zones[text] == nil {
			f.texts = append(f.texts, text)
		}
		f.zones[text] = append(f.zones[text], zone)
	}
}

func (f *effects) list() []PolicyEffect {
	out := make([]PolicyEffect, 0, len(f.texts))
	for _, text := range f.texts {
		out = append(out, PolicyEffect{Text: text, Zones: f.zones[text]})
	}
	return out
}
