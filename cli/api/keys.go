package api

import (
	"cmp"
	"fmt"
	"net/http"

	"sluice/journal/audit"
	"sluice/keymgr"
	"sluice/pipeline"
)

// NewKey asks for a key to be made.
type NewKey struct {
	Role      keymgr.Role `json:"key_role"`
	Algorithm string      `json:"algorithm,omitempty"` // "" is what the policy says
	Keystore  string      `json:"keystore,omitempty"`  // "" is what the policy says
}

// ImportKeys asks for keys to be imported.
type ImportKeys struct {
	Files []pipeline.KeyFile `json:"files"`
}

func (s *server) generateKey(w http.ResponseWriter, r *http.Request) error {
	var k NewKey
	if err := readBody(r, &k); err != nil {
		return err
	}
	keys, err := s.engine.GenerateKey(r.Context(), actorOf(r.Context()), r.PathValue("zone"), k.Role, k.Algorithm, k.Keystore)
	return replyList(w, http.StatusCreated, keys, err)
}

func (s *server) importKeys(w http.ResponseWriter, r *http.Request) error {
	var k ImportKeys
	if err := readBody(r, &k); err != nil {
		return err
	}
	keys, err := s.engine.ImportKey(r.Context(), actorOf(r.Context()), r.PathValue("zone"), k.Files)
	return replyList(w, http.StatusCreated, keys, err)
}

func (s *server) ds(w http.ResponseWriter, r *http.Request) error {
	records, err := s.engine.DS(r.Context(), r.PathValue("zone"), cmp.Or(r.URL.Query().Get("format"), "ds"))
	return replyList(w, http.StatusOK, records, err)
}

func (s *server) listPolicies(w http.ResponseWriter, r *http.Request) error {
	policies, err := s.engine.Policies(r.Context())
	return replyList(w, http.StatusOK, policies, err)
}

func (s *server) showPolicy(w http.ResponseWriter, r *http.Request) error {
	policy, err := s.engine.Policy(r.Context(), r.PathValue("policy"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, policy)
}

func (s *server) reloadPolicies(w http.ResponseWriter, r *http.Request) error {
	change, err := s.engine.ReloadPolicies(r.Context(), actorOf(r.Context()))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, change)
}

func (s *server) journalStatus(w http.ResponseWriter, r *http.Request) error {
	status, err := s.engine.JournalStatus(r.Context())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, status)
}

// verifyJournal streams progress; the one item is the report.
func (s *server) verifyJournal(w http.ResponseWriter, r *http.Request) error {
	q := pipeline.VerifyQuery{Checkpoints: r.URL.Query()["checkpoint"]}
	if text := r.URL.Query().Get("key"); text != "" {
		key, err := audit.ParseVerifier(text)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRequest, err)
		}
		q.Key = key
	}
	return streamFrames(w, true, func(f *frames) error {
		report, err := s.engine.VerifyJournal(r.Context(), q, f.progress)
		if err != nil {
			return err
		}
		return f.item(report)
	})
}

// replyList sends a list, an empty one as [].
func replyList[T any](w http.ResponseWriter, status int, list []T, err error) error {
	if err != nil {
		return err
	}
	if list == nil {
		list = []T{}
	}
	return reply(w, status, list)
}
