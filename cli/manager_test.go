package cli

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// told is a service manager's end of the socket; next waits for a message.
func told(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

// A daemon that hangs must not tell its watchdog that it lives: a ticker alone
// would.
func TestManager_WatchdogIsToldNothingWhileTheDaemonHangs(t *testing.T) {
	next := told(t)
	t.Setenv("WATCHDOG_USEC", "40000")
	m, err := newManager(slog.New(slog.DiscardHandler))
	if err != nil || m.watchdog != 40*time.Millisecond || !m.present {
		t.Fatalf("manager %+v, %v", m, err)
	}
	var hangs atomic.Bool
	hangs.Store(true)
	alive := func(ctx context.Context) error {
		if !hangs.Load() {
			return nil
		}
		<-ctx.Done()
		return errors.New("zone x hangs")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.keepAlive(ctx, alive, func() string { return "well" })
	}()
	for range 3 {
		if got := next(); strings.Contains(got, "WATCHDOG") || !strings.Contains(got, "zone x hangs") {
			t.Errorf("while it hangs it says %q", got)
		}
	}
	hangs.Store(false)
	for got := next(); !strings.Contains(got, "WATCHDOG=1\nSTATUS=well"); got = next() {
		if !strings.Contains(got, "zone x hangs") {
			t.Fatalf("it says %q", got)
		}
	}
	cancel()
	<-done
}

func TestManager_WithoutOneNothingIsSent(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	m, err := newManager(slog.New(slog.DiscardHandler))
	if err != nil || m.present {
		t.Fatalf("manager %+v, %v", m, err)
	}
	m.keepAlive(t.Context(), func(context.Context) error {
		t.Error("it was looked whether the daemon lives, for nobody")
		return nil
	}, nil)
}

func TestManager_AStatusIsOneLine(t *testing.T) {
	next := told(t)
	m, err := newManager(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	m.ready(t.Context(), "2 zones, alarm: a\nb")
	if got := next(); got != "READY=1\nSTATUS=2 zones, alarm: a; b" {
		t.Errorf("told %q", got)
	}
}
