package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sluice/pipeline"
)

// pageSize is how many things of a long list the client asks for at a time.
const pageSize = 500

// fetchAll reads a list page by page, at most limit things of it; 0 is all.
func fetchAll[T any](ctx context.Context, c *Client, path string, query url.Values, limit int) ([]T, error) {
	out := []T{}
	if query == nil {
		query = url.Values{}
	}
	query.Set("limit", strconv.Itoa(pageSize))
	for {
		if left := limit - len(out); limit > 0 && left < pageSize {
			query.Set("limit", strconv.Itoa(left))
		}
		list, next, err := fetchPage[T](ctx, c, path, query)
		if err != nil {
			return nil, err
		}
		if out = append(out, list...); next == nil || limit > 0 && len(out) >= limit {
			return out, nil
		}
		query = next
	}
}

// fetchPage reads one page of a list; next is the query of the one behind it,
// nil behind the last.
func fetchPage[T any](ctx context.Context, c *Client, path string, query url.Values) (list []T, next url.Values, err error) {
	res, err := c.do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		return nil, nil, c.unreachable(ctx, err)
	}
	return list, nextPage(res), nil
}

// nextPage is the query of the page behind an answer, as its Link says; nil
// behind the last.
func nextPage(res *http.Response) url.Values {
	for _, value := range res.Header.Values("Link") {
		for one := range strings.SplitSeq(value, ",") {
			target, rest, ok := strings.Cut(strings.TrimSpace(one), ">")
			if !ok || !strings.HasPrefix(target, "<") || !strings.Contains(rest, `rel="next"`) {
				continue
			}
			if u, err := url.Parse(target[1:]); err == nil {
				return u.Query()
			}
		}
	}
	return nil
}

// FindZones lists zones by name.
func (c *Client) FindZones(ctx context.Context, q pipeline.ZoneQuery) ([]pipeline.ZoneSummary, error) {
	query := zoneFilter(q)
	if q.After != "" {
		query.Set("cursor", cursorOf(q.After))
	}
	return fetchAll[pipeline.ZoneSummary](ctx, c, "/zones", query, q.Limit)
}

// ZonePage lists at most q.Limit zones by name, from a cursor on; "" is the
// beginning. next is the cursor of the page behind, "" behind the last.
func (c *Client) ZonePage(ctx context.Context, q pipeline.ZoneQuery, cursor string) (zones []pipeline.ZoneSummary, next string, err error) {
	query := zoneFilter(q)
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	zones, behind, err := fetchPage[pipeline.ZoneSummary](ctx, c, "/zones", query)
	return zones, behind.Get("cursor"), err
}

func zoneFilter(q pipeline.ZoneQuery) url.Values {
	query := url.Values{}
	for name, value := range map[string]string{"state": q.State, "policy": q.Policy, "notices": q.Severity} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}

// History walks a zone's events, oldest first. With q.Limit, or q.Before, it
// holds those that it walks.
func (c *Client) History(ctx context.Context, name string, q pipeline.HistoryQuery, fn func(Event) error) error {
	query := url.Values{"type": q.Types}
	if !q.Since.IsZero() {
		query.Set("since", formatTime(q.Since))
	}
	if !q.Until.IsZero() {
		query.Set("until", formatTime(q.Until))
	}
	if q.Evidence {
		query.Set("evidence", "true")
	}
	if q.Before > 0 {
		query.Set("cursor", cursorOf(strconv.FormatUint(q.Before, 10)))
	}
	if q.Limit == 0 {
		return stream(ctx, c, zonePath(name, "history"), query, nil, fn)
	}
	var pages [][]Event // the newest first
	for left := q.Limit; left > 0 && query != nil; {
		query.Set("limit", strconv.Itoa(min(left, MaxLimit)))
		page, next, err := c.historyPage(ctx, name, query)
		if err != nil {
			return err
		}
		pages = append(pages, page)
		left -= len(page)
		query = next
	}
	for _, page := range slices.Backward(pages) {
		for _, e := range page {
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// historyPage reads one page of history; next leads to the events before it.
func (c *Client) historyPage(ctx context.Context, name string, query url.Values) (page []Event, next url.Values, err error) {
	res, err := c.do(ctx, http.MethodGet, zonePath(name, "history"), query, nil)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	err = walkFrames(ctx, c, res.Body, nil, func(e Event) error {
		page = append(page, e)
		return nil
	})
	return page, nextPage(res), err
}
