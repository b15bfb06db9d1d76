package keymgr

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
)

// The words of a former signer for how far a record has got around.
const (
	hidden      = "hidden"
	rumoured    = "rumoured"
	omnipresent = "omnipresent"
	unretentive = "unretentive"
)

// in reports whether a spread is one of the states; one that was not noted is
// hidden.
func in(s *event.Spread, states ...string) bool {
	state := hidden
	if s != nil {
		state = s.State
	}
	return slices.Contains(states, state)
}

// ReadLife says how an imported key stands by what its former signer noted,
// and what those notes lack or contradict. Where they leave a choice, the key
// stays in use: what is published and signs breaks nothing.
func ReadLife(l *event.KeyLife, role Role, now time.Time) (state State, notes []string) {
	switch {
	case l == nil:
		return Active, nil
	case l.DNSKEY != nil:
		return readSpreads(l, role, now)
	}
	return readTimes(l, role, now)
}

// past reports whether something was to happen by now.
func past(at int64, now time.Time) bool { return at != 0 && at <= now.Unix() }

// readTimes reads timing metadata (dnssec-settime).
func readTimes(l *event.KeyLife, role Role, now time.Time) (State, []string) {
	if l.Published == 0 && l.Activated == 0 && l.Retired == 0 && l.Removed == 0 {
		return Active, []string{"no timing metadata: taken for a key that signs"}
	}
	var wrong []string
	for _, pair := range []struct {
		first, second string
		a, b          int64
	}{
		{"publish", "activate", l.Published, l.Activated},
		{"activate", "inactive", l.Activated, l.Retired},
		{"inactive", "delete", l.Retired, l.Removed},
	} {
		if pair.a != 0 && pair.b != 0 && pair.b < pair.a {
			wrong = append(wrong, fmt.Sprintf("%s is before %s", pair.second, pair.first))
		}
	}
	began := past(l.Published, now) || past(l.Activated, now)
	switch {
	case len(wrong) > 0 && began:
		return Active, []string{strings.Join(wrong, ", ") + ": taken for a key that signs"}
	case past(l.Removed, now):
		return Removed, nil
	case past(l.Retired, now) && role == ZSK:
		return Retired, nil
	case past(l.Retired, now):
		return Active, []string{"inactive, but not deleted: a " + strings.ToUpper(string(role)) + " that is published signs until it is removed"}
	case past(l.Activated, now):
		return Active, nil
	case past(l.Published, now):
		return Published, nil
	}
	return Generated, nil
}

// readSpreads reads states (dnssec-policy).
func readSpreads(l *event.KeyLife, role Role, now time.Time) (State, []string) {
	out := in(l.DNSKEY, hidden, unretentive)
	signs := role != ZSK && (in(l.KeySigs, rumoured, omnipresent) || in(l.DS, rumoured, omnipresent, unretentive)) ||
		role != KSK && in(l.ZoneSigs, rumoured, omnipresent)
	// Some signers note a signature before they make it.
	early := role == ZSK && !past(l.Activated, now) && l.Activated != 0
	switch {
	case signs && out:
		return Active, []string{fmt.Sprintf("its DNSKEY is %s, and yet it signs or has a DS: taken for a key that signs", l.DNSKEY.State)}
	case signs && early:
		return Published, nil
	case signs && role == ZSK && past(l.Removed, now):
		return Active, []string{"its removal was due, and yet its state is that of a key that signs: taken for one"}
	case signs:
		return Active, nil
	case role != KSK && in(l.ZoneSigs, unretentive):
		if role == CSK {
			return Active, []string{"caches may hold its signatures: it signs until it is removed"}
		}
		return Retired, nil
	case in(l.DNSKEY, unretentive), out && l.Goal == hidden && l.Published != 0:
		return Removed, nil
	case out:
		return Generated, nil
	case l.Goal == hidden && role == ZSK && past(l.Activated, now):
		return Retired, nil
	}
	return Published, nil
}

// lifeTime is a noted time as it may count: 0 where it is not past.
func lifeTime(at int64, now time.Time) int64 {
	if past(at, now) {
		return at
	}
	return 0
}

// adopted is a key as it stands from now on.
func adopted(k *Key, state State, now time.Time) event.AdoptedKey {
	a := event.AdoptedKey{ID: k.ID, State: string(state)}
	l := k.Life
	if l == nil {
		return a
	}
	if state != Introduced {
		a.Published = lifeTime(l.Published, now)
	}
	if state == Active || state == Introduced || state == Retired || state == Removed {
		a.Activated = lifeTime(l.Activated, now)
	}
	if state == Retired || state == Removed {
		if a.Retired = lifeTime(l.Retired, now); a.Retired == 0 && in(l.ZoneSigs, unretentive) {
			a.Retired = lifeTime(l.ZoneSigs.Since, now)
		}
	}
	if state == Removed {
		a.Removed = lifeTime(l.Removed, now)
	}
	return a
}

// adopt folds how a key of a former signer stands. A time that was not noted
// is that of the event.
func (k *Key) adopt(a event.AdoptedKey, at time.Time) {
	if k.State != Generated {
		return
	}
	noted := func(n int64) time.Time {
		if n == 0 {
			return at
		}
		return time.Unix(n, 0).UTC()
	}
	switch s := State(a.State); s {
	case Published:
		k.State, k.Published = s, noted(a.Published)
	case Active:
		k.State, k.Published, k.Activated = s, noted(a.Published), noted(a.Activated)
	case Retired:
		k.State, k.Published, k.Retired = s, noted(a.Published), noted(a.Retired)
		if a.Activated != 0 {
			k.Activated = noted(a.Activated)
		}
	case Removed:
		k.State, k.Removed = s, noted(a.Removed)
	case Introduced:
		k.State, k.Activated = s, noted(a.Activated)
	case Generated, Ready, Dead, Revoked, Withdrawn:
	}
}
