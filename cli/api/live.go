package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"sluice/pipeline"
)

// NewSerial is what raises a zone's serial.
type NewSerial struct {
	Serial uint32 `json:"serial"`
}

func (s *server) changeZone(w http.ResponseWriter, r *http.Request) error {
	var c pipeline.ZoneChange
	if err := readBody(r, &c); err != nil {
		return err
	}
	plan, err := s.engine.SetZone(r.Context(), actorOf(r.Context()), r.PathValue("zone"), c)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, plan)
}

func (s *server) resignZone(w http.ResponseWriter, r *http.Request) error {
	full, err := boolParam(r, "full")
	if err != nil {
		return err
	}
	if err := s.engine.Resign(r.Context(), actorOf(r.Context()), r.PathValue("zone"), full); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (s *server) notifySecondaries(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.NotifySecondaries(r.Context(), r.PathValue("zone")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (s *server) observeZone(w http.ResponseWriter, r *http.Request) error {
	status, err := s.engine.Observe(r.Context(), r.PathValue("zone"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, status)
}

func (s *server) serials(w http.ResponseWriter, r *http.Request) error {
	serials, err := s.engine.Serials(r.Context(), r.PathValue("zone"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, serials)
}

func (s *server) raiseSerial(w http.ResponseWriter, r *http.Request) error {
	var n NewSerial
	if err := readBody(r, &n); err != nil {
		return err
	}
	if err := s.engine.RaiseSerial(r.Context(), actorOf(r.Context()), r.PathValue("zone"), n.Serial); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) listTSIG(w http.ResponseWriter, r *http.Request) error {
	keys, err := s.engine.TSIGKeys(r.Context())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, keys)
}

func (s *server) addTSIG(w http.ResponseWriter, r *http.Request) error {
	var k pipeline.NewTSIG
	if err := readBody(r, &k); err != nil {
		return err
	}
	key, err := s.engine.AddTSIG(r.Context(), actorOf(r.Context()), k)
	if err != nil {
		return err
	}
	return reply(w, http.StatusCreated, key)
}

func (s *server) exportTSIG(w http.ResponseWriter, r *http.Request) error {
	key, err := s.engine.ExportTSIG(r.Context(), actorOf(r.Context()), r.PathValue("key"))
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return reply(w, http.StatusOK, key)
}

func (s *server) removeTSIG(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.RemoveTSIG(r.Context(), actorOf(r.Context()), r.PathValue("key")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// SetZone changes a zone's source or policy, or tells what that would do.
func (c *Client) SetZone(ctx context.Context, name string, change pipeline.ZoneChange) (pipeline.ZonePlan, error) {
	return fetch[pipeline.ZonePlan](ctx, c, http.MethodPatch, zonePath(name), nil, change)
}

// Resign asks for a signing, with full of everything, and returns at once.
func (c *Client) Resign(ctx context.Context, name string, full bool) error {
	return c.act(ctx, http.MethodPost, zonePath(name, "resign"), url.Values{"full": {strconv.FormatBool(full)}})
}

// Observe asks the zone's public servers and its parent now, and returns when
// all have answered or had their time.
func (c *Client) Observe(ctx context.Context, name string) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodPost, zonePath(name, "observe"), nil, nil)
}

// NotifySecondaries tells the secondaries again and returns at once.
func (c *Client) NotifySecondaries(ctx context.Context, name string) error {
	return c.act(ctx, http.MethodPost, zonePath(name, "notify"), nil)
}

// Serials tells which serials are where.
func (c *Client) Serials(ctx context.Context, name string) (pipeline.ZoneSerials, error) {
	return fetch[pipeline.ZoneSerials](ctx, c, http.MethodGet, zonePath(name, "serial"), nil, nil)
}

// RaiseSerial makes serial the next that is published.
func (c *Client) RaiseSerial(ctx context.Context, name string, serial uint32) error {
	res, err := c.do(ctx, http.MethodPut, zonePath(name, "serial"), nil, NewSerial{Serial: serial})
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// TSIGKeys lists the TSIG keys.
func (c *Client) TSIGKeys(ctx context.Context) ([]pipeline.TSIGKey, error) {
	return fetch[[]pipeline.TSIGKey](ctx, c, http.MethodGet, "/tsig", nil, nil)
}

// AddTSIG adds a TSIG key.
func (c *Client) AddTSIG(ctx context.Context, k pipeline.NewTSIG) (pipeline.TSIGKey, error) {
	return fetch[pipeline.TSIGKey](ctx, c, http.MethodPost, "/tsig", nil, k)
}

// ExportTSIG is a TSIG key with its secret.
func (c *Client) ExportTSIG(ctx context.Context, name string) (pipeline.TSIGSecret, error) {
	return fetch[pipeline.TSIGSecret](ctx, c, http.MethodGet, "/tsig/"+url.PathEscape(name), nil, nil)
}

// RemoveTSIG removes a TSIG key.
func (c *Client) RemoveTSIG(ctx context.Context, name string) error {
	return c.act(ctx, http.MethodDelete, "/tsig/"+url.PathEscape(name), nil)
}
