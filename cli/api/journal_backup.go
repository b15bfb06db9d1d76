package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"sluice/journal"
	"sluice/journal/backup"
	"sluice/pipeline"
)

// backupJournal sends the events behind a position, with their chunks, as
// backup.Receive reads it.
func (s *server) backupJournal(w http.ResponseWriter, r *http.Request) error {
	var after journal.Position
	q := r.URL.Query()
	if text := q.Get("seq"); text != "" {
		seq, err := strconv.ParseUint(text, 10, 64)
		if err == nil {
			err = after.Hash.UnmarshalText([]byte(q.Get("hash")))
		}
		if err != nil {
			return fmt.Errorf("%w: position of the earlier backup: %w", ErrRequest, err)
		}
		after.Stream, after.Seq = q.Get("stream"), seq
	}
	head, source, err := s.engine.Backup(r.Context(), after)
	if err != nil {
		return err
	}
	w.Header().Set("Trailer", outcomeTrailer)
	started := &lazyWriter{ResponseWriter: w, contentType: "application/octet-stream"}
	err = backup.Send(r.Context(), started, head, source, after.Seq+1)
	if err != nil && !started.begun {
		w.Header().Del("Trailer")
		return err
	}
	setOutcome(w, err)
	return nil
}

func (s *server) recordBackup(w http.ResponseWriter, r *http.Request) error {
	var b pipeline.BackupDone
	if err := readBody(r, &b); err != nil {
		return err
	}
	if err := s.engine.RecordBackup(r.Context(), actorOf(r.Context()), b); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// BackupJournal has fn read what the journal holds behind a position. What is
// not complete is an error of fn, or of what comes behind it.
func (c *Client) BackupJournal(ctx context.Context, after journal.Position, fn func(backup.Head, backup.Source) error) error {
	query := url.Values{}
	if after.Seq > 0 {
		query = url.Values{"stream": {after.Stream}, "seq": {strconv.FormatUint(after.Seq, 10)}, "hash": {after.Hash.String()}}
	}
	res, err := c.do(ctx, http.MethodGet, "/journal/backup", query, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	head, source, err := backup.Receive(res.Body)
	if err == nil {
		err = fn(head, source)
	}
	if err != nil {
		// Where it is not whole, the daemon may have said why.
		if outcome := res.Trailer.Get(outcomeTrailer); outcome != "" && outcome != "ok" {
			return newProblem(http.StatusInternalServerError, outcome)
		}
	}
	return err
}

// RecordBackup has the daemon record that a copy was made.
func (c *Client) RecordBackup(ctx context.Context, b pipeline.BackupDone) error {
	res, err := c.do(ctx, http.MethodPost, "/journal/backups", nil, b)
	if err != nil {
		return err
	}
	return res.Body.Close()
}
