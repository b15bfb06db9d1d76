package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// The quick start is run word for word in an empty folder, and all that it shows
// is what is printed. The ports that it names may belong to somebody else on
// this machine: free ones stand for them, and today's serials for those of the day
// when it was written.
func TestQuickStart_WordForWord(t *testing.T) {
	t.Parallel()
	need(t, "bash", "sed")
	dir := shortDir(t)
	published, rehearsed, page := freeAddr(t), freeAddr(t), freeAddr(t)
	s := newSession(t, dir, nil,
		"127.0.0.1:8053", published, "-p 8053", "-p "+port(published), "127.0.0.1:8153", rehearsed, "127.0.0.1:8080", page,
		"20261122", time.Now().UTC().Format("20060102"))
	s.strict = true
	// What stands on no command line is put there: the default port.
	s.setUp(`sluice() {
	case "$1 $*" in
	serve*--listen*) command sluice "$@" ;;
	serve*) command sluice "$@" --listen ` + published + ` ;;
	*) command sluice "$@" ;;
	esac
}`)
	for i, block := range consoleBlocks(t, manualPage(t, "quickstart"), "") {
		s.run(block)
		if i == 1 { // the daemon runs: so does its page
			r, err := http.Get("http://" + page + "/")
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Body.Close(); err != nil || r.StatusCode >= 300 || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") {
				t.Errorf("the page: %s, %s", r.Status, r.Header.Get("Content-Type"))
			}
		}
	}
	if left := s.toPage.Replace(readFile(t, dir+"/tour/tour.zone")); !strings.Contains(left, "192.0.2.81") {
		t.Errorf("the reader's zone file:\n%s", left)
	}
}
