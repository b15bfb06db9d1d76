package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sluice/pipeline"
)

// Client speaks to a daemon. Errors that the daemon answers are *Problem;
// where no daemon answers they are ErrUnreachable.
type Client struct {
	at    string // what the daemon is reached by, as people are told
	base  string // what URLs begin with
	token string // "" where the way in says who the caller is
	http  *http.Client
	log   *slog.Logger
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// zonePath is the path of a zone, or of something below it. A name is one
// segment whatever stands in it.
func zonePath(name string, below ...string) string {
	segment := url.PathEscape(name)
	if strings.Trim(name, ".") == "" {
		// The root's "." would be taken for a relative path.
		segment = strings.ReplaceAll(name, ".", "%2E")
	}
	return strings.Join(append([]string{"/zones", segment}, below...), "/")
}

// do sends a request; body, where not nil, is sent as JSON. The answer is a
// success, and the caller closes its body.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	target := c.base + Prefix + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var payload io.Reader
	if body != nil {
		raw, err := marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, payload)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	began := time.Now()
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	c.log.DebugContext(ctx, "request", "method", method, "path", path, "status", res.StatusCode, "took", time.Since(began))
	if res.StatusCode >= http.StatusMultipleChoices { // nothing here leads elsewhere
		defer res.Body.Close()
		return nil, readProblem(res)
	}
	return res, nil
}

// unreachable tells a connection that failed from a caller that gave up.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &cutError{at: c.at, err: err}
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.at, err)
}

// cutError is an answer that ended too soon: the daemon was reached, and went
// away. It is ErrUnreachable.
type cutError struct {
	at  string
	err error
}

func (e *cutError) Error() string {
	return fmt.Sprintf("the daemon at %s broke its answer off", e.at)
}

func (e *cutError) Unwrap() []error { return []error{ErrUnreachable, e.err} }

// readProblem reads the error that the daemon answered.
func readProblem(res *http.Response) error {
	p := newProblem(res.StatusCode, res.Status)
	if res.Header.Get("Content-Type") == mediaProblem {
		var got Problem
		if err := json.NewDecoder(io.LimitReader(res.Body, maxBody)).Decode(&got); err == nil && got.Detail != "" {
			got.Status = res.StatusCode
			return &got
		}
	}
	return p
}

// fetch sends a request and decodes the one document of the answer.
func fetch[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (T, error) {
	var out T
	res, err := c.do(ctx, method, path, query, body)
	if err != nil {
		return out, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return out, c.unreachable(ctx, err)
	}
	return out, nil
}

// act sends a request whose answer has no document.
func (c *Client) act(ctx context.Context, method, path string, query url.Values) error {
	res, err := c.do(ctx, method, path, query, nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// stream sends a request and walks the frames of the answer. An answer that
// ends without saying that it is complete is an error.
func stream[T any](ctx context.Context, c *Client, path string, query url.Values, progress func(pipeline.Progress), fn func(T) error) error {
	res, err := c.do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return walkFrames(ctx, c, res.Body, progress, fn)
}

// walkFrames walks the frames of an answer.
func walkFrames[T any](ctx context.Context, c *Client, body io.Reader, progress func(pipeline.Progress), fn func(T) error) error {
	dec := json.NewDecoder(bufio.NewReaderSize(body, 64<<10))
	for {
		var f Frame
		if err := dec.Decode(&f); err != nil {
			return c.unreachable(ctx, err)
		}
		switch {
		case f.Error != nil:
			return f.Error
		case f.Done:
			return nil
		case f.Progress != nil:
			if progress != nil {
				progress(*f.Progress)
			}
		default:
			var item T
			if err := json.Unmarshal(f.Item, &item); err != nil {
				return fmt.Errorf("answer of the daemon: %w", err)
			}
			if err := fn(item); err != nil {
				return err
			}
		}
	}
}

// streamOne is stream for an answer with exactly one item.
func streamOne[T any](ctx context.Context, c *Client, path string, query url.Values, progress func(pipeline.Progress)) (T, error) {
	var out T
	err := stream(ctx, c, path, query, progress, func(item T) error {
		out = item
		return nil
	})
	return out, err
}
