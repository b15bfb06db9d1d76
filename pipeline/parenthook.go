package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"sluice/journal/event"
	"sluice/keymgr"
)

const (
	// maxHooking bounds the hooks for parents that run at a time, of all zones.
	maxHooking = 16
	// maxTelling bounds the updates and NOTIFYs for parents under way.
	maxTelling = 32
)

// doParentHook runs a hook. Each run is an event; it is killed once nobody needs
// it any more.
func (e *Engine) doParentHook(ctx context.Context, s State, c RunParentHook) ([]event.Facts, error) {
	if s.Told == nil || s.Told.Request != c.Request {
		return nil, nil // something else is to be told now
	}
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	wanted, stop := e.whilePending(ctx, s.Zone, c)
	defer stop()
	if err := take(wanted, e.hooking); err != nil {
		return nil, ctx.Err()
	}
	defer give(e.hooking)
	env, done, err := e.parentEnv(s, p, c)
	if err != nil {
		return nil, fmt.Errorf("hook %d for the parent: %w", c.Number, err)
	}
	defer done()
	outcome, err := e.hook(wanted, "parent", Hook{Command: c.Command, Timeout: c.Timeout}, env)
	ran := &event.HookRan{Request: c.Request, Event: c.Event, Number: uint64(c.Number), Hook: outcome} //nolint:gosec // small
	switch {
	case wanted.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, errHookStart):
		ran.Error = oneLine(err.Error())
	case err != nil:
		return nil, fmt.Errorf("hook %d for the parent: %w", c.Number, err)
	case outcome.ExitCode != 0:
		ran.Error = hookReason(outcome, c.Timeout)
	}
	return []event.Facts{ran}, nil
}

// parentEnv is what a hook is told, and a function that removes its files.
func (e *Engine) parentEnv(s State, p Policy, c RunParentHook) (env []string, done func(), err error) {
	ds, cds, err := parentFiles(s, p)
	if err != nil {
		return nil, nil, err
	}
	var paths []string
	done = func() {
		for _, path := range paths {
			_ = os.Remove(path) // the folder is emptied at the next start
		}
	}
	for _, text := range []string{ds, cds} {
		path, err := writeTemp(string(e.spill.SpillDir), "parent-*", text)
		if err != nil {
			done()
			return nil, nil, err
		}
		paths = append(paths, path)
	}
	var rollovers, reasons []string
	for _, r := range s.Keys.Rollovers {
		if r.Kind != keymgr.RollZSK {
			rollovers = append(rollovers, strconv.FormatUint(r.ID, 10))
			reasons = append(reasons, r.Reason)
		}
	}
	tries := 0
	if t := s.Told.hook(c.Command); t != nil {
		tries = t.Failed
	}
	name := strings.TrimSuffix(s.Name, ".")
	if name == "" {
		name = "."
	}
	return []string{
		"SLUICE_ZONE=" + name,
		"SLUICE_EVENT=" + c.Event,
		"SLUICE_REQUEST=" + strconv.FormatUint(c.Request, 10),
		"SLUICE_TRY=" + strconv.Itoa(tries+1),
		"SLUICE_DS=" + paths[0],
		"SLUICE_CDS=" + paths[1],
		"SLUICE_KEYS=" + strings.Join(s.Keys.DS.Wanted, " "),
		"SLUICE_ROLLOVER=" + strings.Join(rollovers, " "),
		"SLUICE_REASON=" + oneLine(strings.Join(slices.Compact(reasons), "; ")),
	}, done, nil
}

// parentFiles are the DS records that the parent is to have, and the CDS and
// CDNSKEY records that say so, as zone files.
func parentFiles(s State, p Policy) (ds, cds string, err error) {
	apex, err := apexOf(s)
	if err != nil {
		return "", "", err
	}
	var both [2]strings.Builder
	for _, id := range s.Keys.DS.Wanted {
		k, ok := s.Keys.ByID(id)
		if !ok {
			return "", "", fmt.Errorf("key %s: %w", id, ErrNotFound)
		}
		shown := slices.Contains(s.Keys.CDS(), id)
		for _, part := range []struct {
			to     *strings.Builder
			format keymgr.Format
			skip   bool
		}{{&both[0], keymgr.FormatDS, false}, {&both[1], keymgr.FormatCDS, !shown}, {&both[1], keymgr.FormatCDNSKEY, !shown}} {
			if part.skip {
				continue
			}
			records, err := keymgr.ParentRecords(apex, k.Key, string(part.format), p.DSDigests(), p.DNSKEYTTL())
			if err != nil {
				return "", "", err
			}
			part.to.WriteString(strings.Join(records, "\n") + "\n")
		}
	}
	if s.Keys.CDSDelete() {
		// RFC 8078, 4.
		fmt.Fprintf(&both[1], "%[1]s %[2]d IN CDS 0 0 0 00\n%[1]s %[2]d IN CDNSKEY 0 3 0 AA==\n", apex, p.DNSKEYTTL())
	}
	return both[0].String(), both[1].String(), nil
}

func writeTemp(dir, pattern, text string) (path string, err error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
