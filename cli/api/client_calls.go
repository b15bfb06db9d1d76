package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"sluice/journal"
	"sluice/keymgr"
	"sluice/pipeline"
)

// Health reports whether the daemon is well.
func (c *Client) Health(ctx context.Context) (Health, error) {
	return fetch[Health](ctx, c, http.MethodGet, "/health", nil, nil)
}

// Zones lists the zones.
func (c *Client) Zones(ctx context.Context) ([]pipeline.ZoneSummary, error) {
	return c.FindZones(ctx, pipeline.ZoneQuery{})
}

// Zone describes a zone.
func (c *Client) Zone(ctx context.Context, name string) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodGet, zonePath(name), nil, nil)
}

// AddZone adds a zone. Paths in z are those of the daemon.
func (c *Client) AddZone(ctx context.Context, z pipeline.NewZone) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodPost, "/zones", nil, z)
}

// RemoveZone removes a zone.
func (c *Client) RemoveZone(ctx context.Context, name string, force bool) error {
	return c.EndZone(ctx, name, pipeline.Removal{Force: force})
}

// EndZone is RemoveZone with a reason, or under a condition.
func (c *Client) EndZone(ctx context.Context, name string, how pipeline.Removal) error {
	query := url.Values{"force": {strconv.FormatBool(how.Force)}}
	if how.Reason != "" {
		query.Set("reason", how.Reason)
	}
	if how.At != 0 {
		query.Set("at", strconv.FormatUint(how.At, 10))
	}
	return c.act(ctx, http.MethodDelete, zonePath(name), query)
}

// Reload asks for a load, with full of everything, and returns at once.
func (c *Client) Reload(ctx context.Context, name string, full bool) error {
	return c.act(ctx, http.MethodPost, zonePath(name, "reload"), url.Values{"full": {strconv.FormatBool(full)}})
}

// Replace is Reload in full that also puts the source's contents in the place of
// what dynamic updates made.
func (c *Client) Replace(ctx context.Context, name string) error {
	return c.act(ctx, http.MethodPost, zonePath(name, "reload"), url.Values{"full": {"true"}, "replace": {"true"}})
}

// Await waits until the zone is at rest.
func (c *Client) Await(ctx context.Context, name string, progress func(pipeline.Progress)) (pipeline.ZoneStatus, error) {
	return streamOne[pipeline.ZoneStatus](ctx, c, zonePath(name, "await"), nil, progress)
}

// Tail follows the events of a zone, or of all zones where name is empty,
// until ctx ends. from is a sequence or an RFC 3339 time; empty for new
// events only.
func (c *Client) Tail(ctx context.Context, name, from string, fn func(Event) error) error {
	path := "/events"
	if name != "" {
		path = zonePath(name, "events")
	}
	query := url.Values{}
	if from != "" {
		query.Set("from", from)
	}
	res, err := c.do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	r := bufio.NewReaderSize(res.Body, 64<<10)
	var kind string
	for {
		line, err := r.ReadString('\n')
		if err != nil || ctx.Err() != nil {
			return c.unreachable(ctx, err)
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "event":
			kind = value
		case "data":
			if err := tailData(kind, value, fn); err != nil {
				return err
			}
		case "":
			kind = ""
		}
	}
}

// tailData takes the data of one server-sent event.
func tailData(name, value string, fn func(Event) error) error {
	if name == "problem" {
		var p Problem
		if err := json.Unmarshal([]byte(value), &p); err != nil {
			return fmt.Errorf("answer of the daemon: %w", err)
		}
		return &p
	}
	var e Event
	if err := json.Unmarshal([]byte(value), &e); err != nil {
		return fmt.Errorf("answer of the daemon: %w", err)
	}
	return fn(e)
}

// Replay rebuilds a zone from its events and walks the instances met. to is
// empty, a serial, seq:N or a time; verify computes every digest from the
// items.
func (c *Client) Replay(ctx context.Context, name, to string, verify bool, progress func(pipeline.Progress), fn func(pipeline.ReplayStep) error) error {
	query := url.Values{"verify": {strconv.FormatBool(verify)}}
	if to != "" {
		query.Set("to", to)
	}
	return stream(ctx, c, zonePath(name, "replay"), query, progress, fn)
}

// Dump writes an instance as a zone file.
func (c *Client) Dump(ctx context.Context, name string, q pipeline.DumpQuery, w io.Writer) error {
	query := url.Values{}
	if q.Loaded {
		query.Set("loaded", "true")
	}
	if q.Serial != nil {
		query.Set("serial", strconv.FormatUint(uint64(*q.Serial), 10))
	}
	if !q.At.IsZero() {
		query.Set("at", formatTime(q.At))
	}
	res, err := c.do(ctx, http.MethodGet, zonePath(name, "dump"), query, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := copyBody(w, res.Body); err != nil {
		if isWriteError(err) {
			return err
		}
		return c.unreachable(ctx, err)
	}
	return c.outcome(ctx, res)
}

// outcome is how a streamed file ended that was read to its end.
func (c *Client) outcome(ctx context.Context, res *http.Response) error {
	switch outcome := res.Trailer.Get(outcomeTrailer); outcome {
	case "ok":
		return nil
	case "":
		return c.unreachable(ctx, io.ErrUnexpectedEOF)
	default:
		return newProblem(http.StatusInternalServerError, outcome)
	}
}

// Diff walks the records that differ between two instances.
func (c *Client) Diff(ctx context.Context, name, from, to string, fn func(pipeline.DiffLine) error) error {
	return stream(ctx, c, zonePath(name, "diff"), url.Values{"from": {from}, "to": {to}}, nil, fn)
}

// VerifyZone verifies what the zone serves.
func (c *Client) VerifyZone(ctx context.Context, name string, progress func(pipeline.Progress)) (Report, error) {
	return streamOne[Report](ctx, c, zonePath(name, "verify"), nil, progress)
}

// CheckZone runs the built-in checks over what was loaded last.
func (c *Client) CheckZone(ctx context.Context, name string, progress func(pipeline.Progress)) (pipeline.ZoneCheck, error) {
	return streamOne[pipeline.ZoneCheck](ctx, c, zonePath(name, "check"), nil, progress)
}

// Keys lists a zone's keys.
func (c *Client) Keys(ctx context.Context, name string) ([]keymgr.Key, error) {
	return fetchAll[keymgr.Key](ctx, c, zonePath(name, "keys"), nil, 0)
}

// GenerateKey makes a key.
func (c *Client) GenerateKey(ctx context.Context, name string, k NewKey) ([]keymgr.Key, error) {
	return fetch[[]keymgr.Key](ctx, c, http.MethodPost, zonePath(name, "keys"), nil, k)
}

// ImportKeys imports keys from files of the daemon's machine.
func (c *Client) ImportKeys(ctx context.Context, name string, files []pipeline.KeyFile) ([]keymgr.Key, error) {
	return fetch[[]keymgr.Key](ctx, c, http.MethodPost, zonePath(name, "keys", "files"), nil, ImportKeys{Files: files})
}

// ExportKey fetches the files of a key, its private part among them.
func (c *Client) ExportKey(ctx context.Context, name, id string) (keymgr.KeyFiles, error) {
	return fetch[keymgr.KeyFiles](ctx, c, http.MethodPost, zonePath(name, "keys", id, "export"), nil, ExportKey{Understood: true})
}

// PlanTakeover says how a zone would be taken over; nothing is added.
func (c *Client) PlanTakeover(ctx context.Context, z pipeline.NewZone) (pipeline.TakeoverPlan, error) {
	return fetch[pipeline.TakeoverPlan](ctx, c, http.MethodPost, "/takeover", nil, z)
}

// DS lists the records for a zone's parent.
func (c *Client) DS(ctx context.Context, name, format string) ([]pipeline.DSRecord, error) {
	return fetch[[]pipeline.DSRecord](ctx, c, http.MethodGet, zonePath(name, "ds"), url.Values{"format": {format}}, nil)
}

// Policies lists the policies.
func (c *Client) Policies(ctx context.Context) ([]pipeline.PolicyInfo, error) {
	return fetch[[]pipeline.PolicyInfo](ctx, c, http.MethodGet, "/policies", nil, nil)
}

// Policy shows a policy.
func (c *Client) Policy(ctx context.Context, name string) (pipeline.PolicyInfo, error) {
	return fetch[pipeline.PolicyInfo](ctx, c, http.MethodGet, "/policies/"+url.PathEscape(name), nil, nil)
}

// ReloadPolicies reads the policy files again.
func (c *Client) ReloadPolicies(ctx context.Context) (pipeline.PolicyChange, error) {
	return fetch[pipeline.PolicyChange](ctx, c, http.MethodPost, "/policies/reload", nil, nil)
}

// JournalStatus describes the journal.
func (c *Client) JournalStatus(ctx context.Context) (pipeline.JournalStatus, error) {
	return fetch[pipeline.JournalStatus](ctx, c, http.MethodGet, "/journal", nil, nil)
}

// VerifyJournal reads and checks the whole journal.
func (c *Client) VerifyJournal(ctx context.Context, q pipeline.VerifyQuery, progress func(pipeline.Progress)) (journal.VerifyReport, error) {
	query := url.Values{"checkpoint": q.Checkpoints}
	if q.Key != nil {
		query.Set("key", q.Key.String())
	}
	return streamOne[journal.VerifyReport](ctx, c, "/journal/verify", query, progress)
}

// writeError is an error of the caller's writer.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

func isWriteError(err error) bool {
	_, ok := err.(writeError) //nolint:errorlint // made just below, never wrapped
	return ok
}

// copyBody copies an answer, and tells a reader's error from a writer's.
func copyBody(w io.Writer, r io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return writeError{werr}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
