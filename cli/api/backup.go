package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"sluice/pipeline"
)

func (s *server) markBackup(w http.ResponseWriter, r *http.Request) error {
	var q pipeline.BackupRequest
	if err := readBody(r, &q); err != nil {
		return err
	}
	keys, err := s.engine.MarkBackup(r.Context(), actorOf(r.Context()), q)
	return replyList(w, http.StatusOK, keys, err)
}

func (s *server) publishKey(w http.ResponseWriter, r *http.Request) error {
	status, err := s.engine.PublishKey(r.Context(), actorOf(r.Context()), r.PathValue("zone"), r.PathValue("key"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, status)
}

// Backups lists the keys of a zone, or of all where name is "", whose private
// parts are in keystores; with missing only those that were not backed up.
func (c *Client) Backups(ctx context.Context, name string, missing bool) ([]pipeline.BackupKey, error) {
	query := url.Values{"zone": {name}, "missing": {strconv.FormatBool(missing)}}
	return fetchAll[pipeline.BackupKey](ctx, c, "/backups", query, 0)
}

// MarkBackup notes that keys were backed up, and lists those that it marked.
func (c *Client) MarkBackup(ctx context.Context, q pipeline.BackupRequest) ([]pipeline.BackupKey, error) {
	return fetch[[]pipeline.BackupKey](ctx, c, http.MethodPost, "/backups", nil, q)
}

// PublishKey has a key stand by in the DNSKEY RRset.
func (c *Client) PublishKey(ctx context.Context, name, id string) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodPost, zonePath(name, "keys", id, "publish"), nil, nil)
}
