package pipeline

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"sluice/journal/event"
	"sluice/pipeline/store"
)

// policyTexts holds each text that binds zones once. Many zones share few
// policies, and such a text is longer than all else that is kept of a small zone.
type policyTexts struct {
	mu sync.Mutex
	by map[event.Hash]string // guarded by mu
}

// share gives a state the text that others with the same policy hold, and
// reports whether it has one that is what its hash says.
func (t *policyTexts) share(s *State) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	text, known := t.by[s.Policy.SHA256]
	switch {
	case known && text == s.Policy.Text:
		s.Policy.Text = text
		return true
	case known, s.Policy.Text == "", sha256.Sum256([]byte(s.Policy.Text)) != s.Policy.SHA256:
		return false
	}
	if t.by == nil {
		t.by = map[event.Hash]string{}
	}
	t.by[s.Policy.SHA256] = s.Policy.Text
	return true
}

// encodeState is a zone's state as the projection keeps it: the text of the
// policy stands apart, once for all zones that have it.
func (e *Engine) encodeState(s *State) (store.ZoneState, error) {
	out := store.ZoneState{Zone: s.Zone}
	stored := *s
	if e.texts.share(s) {
		stored.Policy.Text = ""
		out.Common, out.CommonHash = s.Policy.Text, s.Policy.SHA256
	}
	var err error
	out.Data, err = json.Marshal(&stored)
	return out, err
}

// decodeState is the inverse of encodeState. Where the text of the policy is not
// there, or is another, the projection is damaged.
func (e *Engine) decodeState(id event.ZoneID, data []byte) (s State, err error) {
	if err = json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("state of zone %s: %w", id, err)
	}
	apart := s.Policy.Text == "" && s.Policy.Name != ""
	if apart {
		if s.Policy.Text, err = e.policyText(s.Policy.SHA256); err != nil {
			return s, fmt.Errorf("state of zone %s: %w", id, e.note(err))
		}
	}
	if !e.texts.share(&s) && apart {
		return s, gaveUp(e.note(fmt.Errorf("%w: state of zone %s: the text of its policy is not there", store.ErrDamaged, id)))
	}
	s.Keys.Keys = slices.Clone(s.Keys.Keys) // without the room that decoding left
	return s.lean(), nil
}

// policyText finds a text by its hash, "" where there is none.
func (e *Engine) policyText(hash event.Hash) (string, error) {
	e.texts.mu.Lock()
	text, known := e.texts.by[hash]
	e.texts.mu.Unlock()
	if known {
		return text, nil
	}
	data, err := e.store.Common(hash)
	return string(data), err
}
