package api

import (
	"fmt"
	"net/http"

	"sluice/pipeline"
)

// ExportKey asks for the private part of a key.
type ExportKey struct {
	// Understood: whoever asks knows that a secret leaves the keystore.
	Understood bool `json:"i_understand"`
}

func (s *server) exportKey(w http.ResponseWriter, r *http.Request) error {
	var k ExportKey
	if err := readBody(r, &k); err != nil {
		return err
	}
	if !k.Understood {
		return fmt.Errorf("%w: the private part of the key would leave its keystore: say that this is meant, \"i_understand\": true", pipeline.ErrInvalid)
	}
	files, err := s.engine.ExportKey(r.Context(), actorOf(r.Context()), r.PathValue("zone"), r.PathValue("key"))
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return reply(w, http.StatusOK, files)
}

func (s *server) planTakeover(w http.ResponseWriter, r *http.Request) error {
	var z pipeline.NewZone
	if err := readBody(r, &z); err != nil {
		return err
	}
	plan, err := s.engine.PlanTakeover(r.Context(), z)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, plan)
}
