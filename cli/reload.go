package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/journal/event"
	"sluice/pipeline"
	"sluice/xfr"
)

func reloadCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "reload", Usage: "have the daemon read its config file and its policies again",
		Description: "All or nothing: a file with a mistake changes nothing, and the message says where it is.\n" +
			"What takes effect with the next start only is named. The signal SIGHUP does the same.",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				done, err := client.ReloadConfig(c.Context)
				if errors.Is(err, pipeline.ErrInvalid) {
					return withHint(errors.New(err.Error()), "mend it, then again: sluice reload")
				}
				if err != nil {
					return err
				}
				return e.printReloaded(done)
			})
		},
	}
}

// printReloaded tells what came of a reload.
func (e *env) printReloaded(done pipeline.Reloaded) error {
	if e.json {
		return e.printJSON(done)
	}
	text := "nothing in the config changed"
	switch {
	case done.File == "":
		text = "no config file: the daemon runs without --config"
	case len(done.Changed) > 0:
		text = "in effect from now on: " + strings.Join(done.Changed, ", ")
	}
	if err := e.printf("%s\n", text); err != nil {
		return err
	}
	if len(done.Restart) > 0 {
		if err := e.printf("%s %s\n", e.paint(yellow, "in effect with the next start of the daemon:"), strings.Join(done.Restart, ", ")); err != nil {
			return err
		}
	}
	if done.Policies == nil {
		return nil
	}
	return e.printPolicyChange(*done.Policies)
}

// liveKey is a key of the config, or a table with all that is in it, that takes
// effect while the daemon runs.
type liveKey struct {
	key string
	// prepare makes what the new config needs, and returns what puts it in
	// place, which cannot fail.
	prepare func(c config) (apply func(), err error)
}

// live lists what of the config takes effect while the daemon runs. All else
// waits for a restart.
func (s *serving) live() []liveKey {
	simple := func(apply func(c config)) func(config) (func(), error) {
		return func(c config) (func(), error) { return func() { apply(c) }, nil }
	}
	observer := func(c config) (func(), error) {
		o, err := newObserver(c.Daemon, resolvConf)
		return func() { s.observer.Store(o) }, err
	}
	sealing := func(c config) (func(), error) {
		next, err := c.Audit.sealing()
		return func() { s.engine.SetSealing(next, c.Audit.Seal) }, err
	}
	return []liveKey{
		{"daemon.log-level", simple(func(c config) { s.level.Set(slog.Level(c.Daemon.LogLevel)) })},
		{"daemon.memory-limit", simple(func(c config) { s.memory.set(int64(c.Daemon.MemoryLimit)) })},
		{"daemon.resolvers", observer},
		{"daemon.trust-anchors", observer},
		{"alarms", func(c config) (func(), error) { return s.engine.PrepareAlarms(c.Alarms.alarms()) }},
		{"transfers", simple(func(c config) { s.engine.SetTransferLimits(c.Transfers.limits()) })},
		{"audit.events", sealing},
		{"audit.checkpoint-file", sealing},
		{"audit.hook", sealing},
		{"audit.hook-timeout", sealing},
		{"audit.witnesses", sealing},
		{"audit.seal", sealing},
		{"prober", simple(func(c config) {
			p, _ := c.Prober.prober(s.validate) // checked with the config
			s.engine.SetProber(p)
		})},
		{"metrics", simple(func(c config) { s.metrics.SetZones(c.Metrics.Zones, c.Metrics.ZonesLimit) })},
		{"http.limits", simple(func(c config) { s.http.setLimits(c.HTTP.Limits) })},
		{"http.metrics-from", simple(func(c config) {
			open, _ := c.HTTP.metricsFrom() // checked with the config
			s.http.open.Store(&open)
		})},
	}
}

// has reports whether a key of the config is this one or in its table.
func (l liveKey) has(key string) bool {
	return key == l.key || strings.HasPrefix(key, l.key+".")
}

// configKeys is every key of the config with its value.
func configKeys(c *config) map[string]reflect.Value {
	keys := map[string]reflect.Value{}
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for f, value := range v.Fields() {
			name := prefix + f.Tag.Get("toml")
			if value.Kind() == reflect.Struct {
				walk(name+".", value)
				continue
			}
			keys[name] = value
		}
	}
	walk("", reflect.ValueOf(c).Elem())
	return keys
}

// differing lists the keys whose values differ, sorted.
func differing(a, b *config) []string {
	var found []string
	other := configKeys(b)
	for key, value := range configKeys(a) {
		if !sameValue(value, other[key]) {
			found = append(found, key)
		}
	}
	slices.Sort(found)
	return found
}

// sameValue compares two values of the config; a list that is absent is one
// without anything in it.
func sameValue(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// refused is what is wrong with a file that was to be read again. It stands for
// pipeline.ErrInvalid.
type refused struct{ error }

func (r refused) Is(target error) bool { return target == pipeline.ErrInvalid }
func (r refused) Unwrap() error        { return r.error }

// reload reads config and policies again: all or nothing. The service manager
// is told.
func (s *serving) reload(ctx context.Context, actor event.Actor) (pipeline.Reloaded, error) {
	if !s.served.Load() {
		return pipeline.Reloaded{}, withHint(fmt.Errorf("the daemon is starting, and reads its config: %w", pipeline.ErrState), "try again once sluice health says ok")
	}
	s.manager.reloading(ctx)
	defer func() { s.manager.ready(ctx, s.how()) }()
	if s.configFile == "" && s.cfg.PolicyDir == "" {
		return pipeline.Reloaded{}, withHint(fmt.Errorf("the daemon runs without --config and --policy-dir: there is nothing to read again: %w", pipeline.ErrState),
			"start it with --config FILE; see: sluice template config")
	}
	next, err := s.readConfig()
	if err != nil {
		return pipeline.Reloaded{}, refused{fmt.Errorf("nothing changed: %w", err)}
	}
	done := pipeline.Reloaded{ConfigStatus: pipeline.ConfigStatus{File: s.configFile}, Changed: []string{}}
	var apply []func()
	live := s.live()
	for _, key := range differing(&s.asRead, &next) {
		i := slices.IndexFunc(live, func(l liveKey) bool { return l.has(key) })
		if i < 0 {
			done.Restart = append(done.Restart, key)
			continue
		}
		put, err := live[i].prepare(next)
		if err != nil {
			return pipeline.Reloaded{}, refused{fmt.Errorf("nothing changed: %s: %w", key, err)}
		}
		apply = append(apply, put)
		done.Changed = append(done.Changed, key)
	}
	for _, cert := range []*xfr.Certificate{s.secure.certificate, s.http.certificate} {
		if cert == nil {
			continue
		}
		if err := cert.Reload(); err != nil {
			return pipeline.Reloaded{}, refused{fmt.Errorf("nothing changed: %w", err)}
		}
	}
	if done.Policies, err = s.reloadPolicies(ctx, actor); err != nil {
		return pipeline.Reloaded{}, err
	}
	for _, put := range apply {
		put()
	}
	took, had := configKeys(&next), configKeys(&s.asRead)
	for _, key := range done.Changed {
		had[key].Set(took[key])
	}
	done.Loaded = time.Now().UTC()
	s.log.InfoContext(ctx, "config reloaded", "file", s.configFile, "by", actor.Name, "changed", done.Changed, "restart_needed", done.Restart)
	return done, nil
}

// reloadPolicies reads the policies again, where all of their files are right.
func (s *serving) reloadPolicies(ctx context.Context, actor event.Actor) (*pipeline.PolicyChange, error) {
	if s.cfg.PolicyDir == "" {
		return nil, nil
	}
	if _, faults := pipeline.LoadDir(s.cfg.PolicyDir); len(faults) > 0 {
		return nil, refused{fmt.Errorf("nothing changed: %w", errors.Join(faults...))}
	}
	change, err := s.engine.ReloadPolicies(ctx, actor)
	return &change, err
}

// reloadOnSignal reloads at each SIGHUP, until ctx ends.
func (s *serving) reloadOnSignal(ctx context.Context, hup <-chan os.Signal) {
	actor := event.Actor{Name: "unknown", Door: "signal"}
	if u, err := user.Current(); err == nil {
		actor.Name = u.Username
	}
	for {
		select {
		case <-hup:
		case <-ctx.Done():
			return
		}
		if _, err := s.engine.ReloadConfig(ctx, actor); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "config not reloaded", "error", err)
		}
	}
}

// catchHangups catches SIGHUP, which would else end the process.
func catchHangups() (hup <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
