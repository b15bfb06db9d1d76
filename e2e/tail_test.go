package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// sseReader follows a daemon's live events as a browser does: where the stream
// ends it comes back and says which event it had last.
type sseReader struct {
	client *http.Client
	mu     sync.Mutex
	seqs   []uint64 // guarded by mu; of the events, as they came
	joined int      // guarded by mu; how many streams it had
	ended  int      // guarded by mu; how many of them ended without an error
}

func followEvents(t *testing.T, d *daemon) *sseReader {
	t.Helper()
	var dialer net.Dialer
	f := &sseReader{client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", filepath.Join(d.data, "sluice.sock"))
		},
		DisableKeepAlives: true,
	}}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		lastID := "0"
		for ctx.Err() == nil {
			lastID = f.stream(ctx, lastID)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond): // the daemon says 3 s, which is long here
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return f
}

// stream follows one stream to its end and returns the last id that came.
func (f *sseReader) stream(ctx context.Context, lastID string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sluice/api/v1/events", nil)
	if err != nil {
		return lastID
	}
	req.Header.Set("Last-Event-ID", lastID)
	res, err := f.client.Do(req)
	if err != nil {
		return lastID // it does not run now
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return lastID // it still reads its journal
	}
	f.mu.Lock()
	f.joined++
	f.mu.Unlock()
	lines := bufio.NewReader(res.Body)
	var id string
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if err.Error() == "EOF" {
				f.mu.Lock()
				f.ended++
				f.mu.Unlock()
			}
			return lastID
		}
		if text, ok := strings.CutPrefix(line, "id: "); ok {
			id = strings.TrimSpace(text)
		}
		if strings.HasPrefix(line, "data: ") {
			seq, _ := strconv.ParseUint(id, 10, 64)
			f.mu.Lock()
			f.seqs = append(f.seqs, seq)
			f.mu.Unlock()
			lastID = id
		}
	}
}

func (f *sseReader) state() (seqs []uint64, joined, ended int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seqs), f.joined, f.ended
}

func TestEvents_ResumeOverRestartsWithoutGapOrDouble(t *testing.T) {
	t.Parallel()
	file := writeFile(t, filepath.Join(shortDir(t), "zone"), "$TTL 300\n@ SOA ns.example. h.example. 1 3600 600 86400 300\n@ NS ns.example.\n")
	d := startDaemon(t, "", "example.com="+file)
	d.awaitServed(t, "example.com")
	f := followEvents(t, d)
	joined := func(n int) {
		t.Helper()
		await(t, fmt.Sprintf("the stream is joined %d times", n), 30*time.Second, func() (bool, string) {
			_, got, _ := f.state()
			return got >= n, fmt.Sprint(got)
		})
	}
	joined(1)
	d.must(t, "zone", "maintenance", "enable", "example.com")
	d.stop()
	await(t, "the stream ends when the daemon stops", 10*time.Second, func() (bool, string) {
		_, _, ended := f.state()
		return ended == 1, fmt.Sprint(ended)
	})
	d.start(t)
	joined(2)
	d.must(t, "zone", "maintenance", "disable", "example.com")
	d.kill()
	d.start(t)
	joined(3)
	d.must(t, "zone", "resign", "--full", "example.com")

	var journal struct {
		Events struct {
			LastSeq uint64 `json:"last_seq"`
		} `json:"events"`
	}
	await(t, "all events of the journal have come", 30*time.Second, func() (bool, string) {
		if err := json.Unmarshal([]byte(d.must(t, "journal", "status", "--json")), &journal); err != nil {
			return false, err.Error()
		}
		seqs, _, _ := f.state()
		return len(seqs) > 0 && seqs[len(seqs)-1] >= journal.Events.LastSeq, fmt.Sprintf("%d of %d", len(seqs), journal.Events.LastSeq)
	})
	seqs, _, _ := f.state()
	for i, seq := range seqs {
		if seq != uint64(i)+1 {
			t.Fatalf("event %d is the one with the sequence %d: %v", i+1, seq, seqs)
		}
	}
	if len(seqs) < 10 {
		t.Errorf("%d events, which is too few to tell", len(seqs))
	}
}
