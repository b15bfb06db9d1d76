package api

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"sluice/pipeline"
)

// Cosigning is a checkpoint that witnesses have signed.
type Cosigning struct {
	Note string `json:"note"`
}

func (s *server) auditHead(w http.ResponseWriter, _ *http.Request) error {
	h, err := s.engine.AuditHead()
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, h)
}

func (s *server) seal(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.engine.Seal(r.Context(), actorOf(r.Context())); err != nil {
		return err
	}
	return s.auditHead(w, r)
}

func (s *server) cosign(w http.ResponseWriter, r *http.Request) error {
	var c Cosigning
	if err := readBody(r, &c); err != nil {
		return err
	}
	h, err := s.engine.CosignCheckpoint(r.Context(), actorOf(r.Context()), c.Note)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, h)
}

// auditExport sends the files of an export as a tar archive.
func (s *server) auditExport(w http.ResponseWriter, r *http.Request) error {
	q, err := exportQuery(r)
	if err != nil {
		return err
	}
	w.Header().Set("Trailer", outcomeTrailer)
	started := &lazyWriter{ResponseWriter: w, contentType: "application/x-tar"}
	archive := tar.NewWriter(started)
	err = s.engine.AuditExport(r.Context(), actorOf(r.Context()), q, func(path string, content []byte) error {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, Size: int64(len(content))}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := archive.Write(content)
		return err
	})
	if err == nil {
		err = archive.Close()
	}
	if err != nil && !started.begun {
		w.Header().Del("Trailer")
		return err
	}
	setOutcome(w, err)
	return nil
}

func exportQuery(r *http.Request) (q pipeline.ExportQuery, err error) {
	q.Zones = r.URL.Query()["zone"]
	if q.Since, err = timeParam(r, "since"); err != nil {
		return q, err
	}
	if q.Until, err = timeParam(r, "until"); err != nil {
		return q, err
	}
	if q.Chunks, err = boolParam(r, "chunks"); err != nil {
		return q, err
	}
	q.Drop = r.URL.Query()["drop"]
	q.DropSealed, err = boolParam(r, "drop-sealed")
	q.DropSealed = q.DropSealed || len(q.Drop) > 0
	return q, err
}

// AuditHead tells the newest checkpoint of the journal.
func (c *Client) AuditHead(ctx context.Context) (pipeline.AuditHead, error) {
	return fetch[pipeline.AuditHead](ctx, c, http.MethodGet, "/audit/head", nil, nil)
}

// Seal makes a checkpoint now.
func (c *Client) Seal(ctx context.Context) (pipeline.AuditHead, error) {
	return fetch[pipeline.AuditHead](ctx, c, http.MethodPost, "/audit/checkpoints", nil, nil)
}

// Cosign hands over a checkpoint that witnesses have signed.
func (c *Client) Cosign(ctx context.Context, note string) (pipeline.AuditHead, error) {
	return fetch[pipeline.AuditHead](ctx, c, http.MethodPost, "/audit/cosignatures", nil, Cosigning{Note: note})
}

// AuditExport calls fn for each file of an export; the reader is good until
// it returns. An export that is not complete is an error.
func (c *Client) AuditExport(ctx context.Context, q pipeline.ExportQuery, fn func(path string, size int64, content io.Reader) error) error {
	query := url.Values{"zone": q.Zones}
	for key, at := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !at.IsZero() {
			query.Set(key, formatTime(at))
		}
	}
	if q.Chunks {
		query.Set("chunks", "true")
	}
	if q.DropSealed {
		query.Set("drop-sealed", "true")
		query["drop"] = q.Drop
	}
	res, err := c.do(ctx, http.MethodGet, "/audit/export", query, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	archive := tar.NewReader(res.Body)
	for {
		header, err := archive.Next()
		if err == nil {
			if err = fn(header.Name, header.Size, archive); err != nil {
				return err
			}
			continue
		}
		// Where it is not whole, the daemon may have said why.
		if _, rest := io.Copy(io.Discard, res.Body); rest != nil {
			return c.unreachable(ctx, rest)
		}
		if outcome := c.outcome(ctx, res); outcome != nil || errors.Is(err, io.EOF) {
			return outcome
		}
		return err
	}
}
