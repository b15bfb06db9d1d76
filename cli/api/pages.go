package api

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"sluice/keymgr"
	"sluice/pipeline"
)

// MaxLimit is the most that the parameter limit may ask for.
const MaxLimit = 1000

// page is the part of a list that a request asks for.
type page struct {
	limit int    // 0: all
	after string // what the page before ended with; "" for the first page
}

// pageOf reads limit and cursor.
func pageOf(r *http.Request) (page, error) {
	var p page
	q := r.URL.Query()
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > MaxLimit {
			return p, fmt.Errorf("%w: limit %q: want a number from 1 to %d; without it all come", ErrRequest, text, MaxLimit)
		}
		p.limit = n
	}
	if text := q.Get("cursor"); text != "" {
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || len(raw) == 0 {
			return p, errCursor(text)
		}
		p.after = string(raw)
	}
	return p, nil
}

// cursorOf names a place in a list: behind key, or before the sequence that it is.
func cursorOf(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

func errCursor(text string) error {
	return fmt.Errorf("%w: cursor %q: take it from the Link of the page before", ErrRequest, text)
}

// link leads to the page behind the one that ends with last (RFC 8288).
func link(w http.ResponseWriter, r *http.Request, last string) {
	q := r.URL.Query()
	q.Set("cursor", cursorOf(last))
	w.Header().Set("Link", "<"+r.URL.EscapedPath()+"?"+q.Encode()+`>; rel="next"`)
}

// cut takes the first page of a list that begins where the page does, and links
// the next one.
func cut[T any](w http.ResponseWriter, r *http.Request, p page, list []T, key func(T) string) []T {
	if p.limit == 0 || len(list) <= p.limit {
		return list
	}
	list = list[:p.limit]
	link(w, r, key(list[p.limit-1]))
	return list
}

func (s *server) listZones(w http.ResponseWriter, r *http.Request) error {
	p, err := pageOf(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	query := pipeline.ZoneQuery{
		After: p.after, State: q.Get("state"), Policy: q.Get("policy"), Severity: q.Get("notices"),
	}
	if p.limit > 0 {
		query.Limit = p.limit + 1 // one more tells whether there is a next page
	}
	zones, err := s.engine.FindZones(r.Context(), query)
	if err != nil {
		return err
	}
	zones = cut(w, r, p, zones, func(z pipeline.ZoneSummary) string { return z.Name })
	return replyList(w, http.StatusOK, zones, nil)
}

func (s *server) listKeys(w http.ResponseWriter, r *http.Request) error {
	p, err := pageOf(r)
	if err != nil {
		return err
	}
	keys, err := s.engine.Keys(r.Context(), r.PathValue("zone"))
	if err != nil {
		return err
	}
	if p.after != "" {
		// A key stays in the list for ever.
		i := slices.IndexFunc(keys, func(k keymgr.Key) bool { return k.ID == p.after })
		if i < 0 {
			return errCursor(r.URL.Query().Get("cursor"))
		}
		keys = keys[i+1:]
	}
	return replyList(w, http.StatusOK, cut(w, r, p, keys, func(k keymgr.Key) string { return k.ID }), nil)
}

func (s *server) listBackups(w http.ResponseWriter, r *http.Request) error {
	p, err := pageOf(r)
	if err != nil {
		return err
	}
	missing, err := boolParam(r, "missing")
	if err != nil {
		return err
	}
	keys, err := s.engine.Backups(r.Context(), r.URL.Query().Get("zone"), missing)
	if err == nil && p.after != "" {
		keys, err = s.backupsAfter(r.Context(), keys, p.after)
	}
	if err != nil {
		return err
	}
	keys = cut(w, r, p, keys, func(k pipeline.BackupKey) string { return k.Zone + " " + k.ID })
	return replyList(w, http.StatusOK, keys, nil)
}

// backupsAfter leaves out what stands before the zone and key of a cursor and
// these themselves, also where they left the list since.
func (s *server) backupsAfter(ctx context.Context, keys []pipeline.BackupKey, after string) ([]pipeline.BackupKey, error) {
	name, id, ok := strings.Cut(after, " ")
	if !ok {
		return nil, errCursor(after)
	}
	seen := map[string]bool{}
	if all, err := s.engine.Keys(ctx, name); err == nil {
		for _, k := range all[:slices.IndexFunc(all, func(k keymgr.Key) bool { return k.ID == id })+1] {
			seen[k.ID] = true
		}
	}
	return slices.DeleteFunc(keys, func(k pipeline.BackupKey) bool {
		return k.Zone < name || k.Zone == name && seen[k.ID]
	}), nil
}

// history sends all events that a query selects, or with limit a page: the
// newest of them, and behind each Link the ones before.
func (s *server) history(w http.ResponseWriter, r *http.Request) error {
	p, err := pageOf(r)
	if err != nil {
		return err
	}
	q := pipeline.HistoryQuery{Closed: !seesSealed(r.Context())}
	if q.Since, err = timeParam(r, "since"); err != nil {
		return err
	}
	if q.Until, err = timeParam(r, "until"); err != nil {
		return err
	}
	if q.Evidence, err = boolParam(r, "evidence"); err != nil {
		return err
	}
	q.Types = r.URL.Query()["type"]
	if p.after != "" {
		if q.Before, err = strconv.ParseUint(p.after, 10, 63); err != nil || q.Before == 0 {
			return errCursor(p.after)
		}
	}
	if p.limit == 0 {
		return streamFrames(w, false, func(f *frames) error {
			return s.engine.History(r.Context(), r.PathValue("zone"), q, func(l pipeline.HistoryLine) error {
				return f.item(eventOf(l))
			})
		})
	}
	q.Limit = p.limit + 1 // one more tells whether there are older ones
	var found []pipeline.HistoryLine
	err = s.engine.History(r.Context(), r.PathValue("zone"), q, func(l pipeline.HistoryLine) error {
		found = append(found, l)
		return nil
	})
	if err != nil {
		return err
	}
	if len(found) > p.limit {
		found = found[len(found)-p.limit:]
		link(w, r, strconv.FormatUint(found[0].Seq, 10))
	}
	return streamFrames(w, false, func(f *frames) error {
		for _, l := range found {
			if err := f.item(eventOf(l)); err != nil {
				return err
			}
		}
		return nil
	})
}
