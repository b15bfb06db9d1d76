package manyzones

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// scrapes is how often metrics are scraped to measure that.
const scrapes = 10

// Scrape is what one scrape of the metrics takes.
type Scrape struct {
	Best   time.Duration // the fastest
	CPU    time.Duration // of the daemon, on average
	Bytes  int64
	Series int
}

// scrape measures scrapes of the daemon's metrics.
func (r *run) scrape(ctx context.Context) error {
	c := r.daemon.client()
	defer c.CloseIdleConnections()
	before, _, _ := r.daemon.usage()
	for i := range scrapes {
		began := time.Now()
		text, err := getText(ctx, c, "http://sluice/metrics")
		if err != nil {
			return fmt.Errorf("scrape metrics: %w", err)
		}
		s := &r.report.Scrape
		if took := time.Since(began); i == 0 || took < s.Best {
			s.Best = took
		}
		s.Bytes, s.Series = int64(len(text)), bytes.Count(text, []byte("\n"))-bytes.Count(text, []byte("\n#"))
	}
	after, _, _ := r.daemon.usage()
	r.report.Scrape.CPU = (after - before) / scrapes
	_, err := fmt.Fprintf(r.Log, "a scrape: %s, %s of CPU, %d series, %d bytes\n",
		r.report.Scrape.Best, r.report.Scrape.CPU, r.report.Scrape.Series, r.report.Scrape.Bytes)
	return err
}

// getText gets a document.
func getText(ctx context.Context, c *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return io.ReadAll(res.Body)
}
