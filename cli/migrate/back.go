package migrate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/cli/api"
	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/signer/zone"
	"sluice/xfr"
)

// backFolder is where the keys stand that go back.
const backFolder = "back"

// Returned is how a zone goes back to its former signer.
type Returned struct {
	Zone string `json:"zone"`
	// Outcome is removed (it is no longer here), waits (see Steps) or absent (it
	// is not here).
	Outcome string `json:"outcome"`
	Text    string `json:"text,omitempty"`
	// Files are the keys as they stand now, for the former signer.
	Files []string `json:"files,omitempty"`
	// Serial is what the former signer's has to be above.
	Serial *uint32  `json:"serial,omitempty"`
	Steps  []string `json:"steps,omitempty"` // as in Former
}

// The outcomes of going back.
const (
	Removed = "removed"
	Waits   = "waits"
	Absent  = "absent"
)

// BackQuery says what goes back.
type BackQuery struct {
	Zones []string // none: all
	// Done says that the secondaries are with the former signer again.
	Done bool
}

// Back takes zones back to their former signer. As long as all public servers
// answer, and none shows what is published here, a zone is only taken away. After that its keys
// are written to the folder, and it goes once Done is said. Where a public
// server is seen to show it still, Done is refused.
func Back(ctx context.Context, client *api.Client, dir string, q BackQuery) ([]Returned, error) {
	full, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c := &checker{client: client, asks: xfr.NewClient(quick())}
	if c.plan, err = Load(full); err != nil {
		return nil, err
	}
	zones, err := c.plan.Select(q.Zones)
	if err != nil {
		return nil, err
	}
	var out []Returned
	for _, z := range zones {
		if z.Refused != "" {
			continue
		}
		one, err := c.back(ctx, z, full, q.Done)
		if err != nil {
			return out, fmt.Errorf("zone %s: %w", z.Zone, err)
		}
		out = append(out, one)
	}
	return out, nil
}

// back takes one zone back.
func (c *checker) back(ctx context.Context, z PlannedZone, dir string, done bool) (Returned, error) {
	out := Returned{Zone: z.Zone, Outcome: Waits}
	st, err := c.client.Observe(ctx, z.Zone)
	if errors.Is(err, pipeline.ErrState) {
		st, err = c.client.Zone(ctx, z.Zone)
	}
	switch {
	case errors.Is(err, pipeline.ErrNotFound):
		out.Outcome = Absent
		return out, nil
	case err != nil:
		return out, err
	}
	seen := Checked{Zone: z.Zone}
	if st.Published != nil {
		n := st.Published.Serial
		seen.Serial, out.Serial = &n, &n
		if n, err := primarySerial(ctx, c.asks, z); err == nil {
			seen.Former = &n
		}
		c.shown(&seen, z, st)
	}
	all := 0 // one that is silent may hold what was published here
	if st.Observation != nil {
		all = len(st.Observation.Zone)
	}
	asked := st.Observation != nil && (seen.Servers > 0 && seen.Servers == all || st.Published == nil)
	written := slices.ContainsFunc(st.Keys, func(k keymgr.Key) bool { return k.State != keymgr.Generated }) && c.wasGiven(dir, z)
	switch {
	case seen.Ours > 0 && done:
		out.Text = fmt.Sprintf("%d addresses of public servers still show serials from here: switch the secondaries first", seen.Ours)
		return out, nil
	case done, asked && seen.Ours == 0 && !written:
		// The DS at the parent is of keys that the former signer has, too.
		if err := c.client.RemoveZone(ctx, z.Zone, true); err != nil {
			return out, err
		}
		out.Outcome, out.Text = Removed, "its history and keys stay here"
		return out, nil
	}
	var stays []string
	if out.Files, stays, err = c.give(ctx, z, dir, st); err != nil {
		return out, err
	}
	switch {
	case seen.Servers == 0:
		out.Text = "no public server answers: they may hold what was published here"
	case !asked && seen.Ours == 0:
		out.Text = fmt.Sprintf("%d of %d addresses of public servers do not answer: they may hold what was published here", all-seen.Servers, all)
	case seen.Ours == 0:
		out.Text = "no public server shows serials from here any longer"
	default:
		out.Text = fmt.Sprintf("%d of %d addresses of public servers show serials from here", seen.Ours, seen.Servers)
	}
	out.Steps = append(stays, c.stepsBack(z, dir, out)...)
	return out, nil
}

// folderOf is where the keys of a zone stand that go back.
func folderOf(dir string, z PlannedZone) string {
	return filepath.Join(dir, backFolder, safeName(z.Zone+"."))
}

// wasGiven reports whether the keys of a zone were written once.
func (c *checker) wasGiven(dir string, z PlannedZone) bool {
	_, err := os.Stat(folderOf(dir, z))
	return err == nil
}

// give writes the keys of a zone as they stand now, and replaces what was
// written before. stays tells of those that cannot leave their token.
func (c *checker) give(ctx context.Context, z PlannedZone, dir string, st pipeline.ZoneStatus) (paths, stays []string, err error) {
	folder := folderOf(dir, z)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, nil, err
	}
	old, err := filepath.Glob(filepath.Join(folder, "K*"))
	if err != nil {
		return nil, nil, err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return nil, nil, err
		}
	}
	for _, k := range st.Keys {
		if k.State == keymgr.Removed || k.State == keymgr.Generated || k.Foreign || onToken(z, k) || !k.Destroyed.IsZero() {
			continue
		}
		files, err := c.client.ExportKey(ctx, z.Zone, k.ID)
		if errors.Is(err, pipeline.ErrState) {
			stays = append(stays, fmt.Sprintf("%s %d is %s, and stays in keystore %s (%s): have the former signer use it there.",
				strings.ToUpper(k.Role), k.Tag, k.State, k.Keystore, k.Reference))
			continue
		}
		if err != nil {
			return paths, stays, fmt.Errorf("key %d: %w", k.Tag, err)
		}
		for _, f := range []struct {
			suffix string
			text   []byte
		}{{".private", files.Private}, {".key", files.Public}, {".state", files.State}} {
			path := filepath.Join(folder, filepath.Base(files.Name)+f.suffix)
			if err := writeSecret(path, f.text); err != nil {
				return paths, stays, err
			}
			paths = append(paths, path)
		}
		clear(files.Private)
	}
	return paths, stays, nil
}

// onToken reports whether a key is where the former signer had it all the time.
func onToken(z PlannedZone, k keymgr.Key) bool {
	return slices.ContainsFunc(z.Keys, func(p PlannedKey) bool { return p.ID == k.ID && p.Keystore != "" })
}

// stepsBack is what is to be done at the former signer.
func (c *checker) stepsBack(z PlannedZone, dir string, out Returned) []string {
	steps := []string{fmt.Sprintf("The keys as they stand now are in %s; change none of them here from now on.", folderOf(dir, z))}
	if out.Serial != nil {
		steps = append(steps, fmt.Sprintf("The serial of %s has to be above %d, such as %d.", Names()[c.plan.Kind], *out.Serial, uint32(zone.Serial(*out.Serial)+1)))
	}
	steps = append(append(steps, z.Back...), c.plan.Back...)
	return append(steps, "Have the secondaries take the zone from there, and once all public servers show it:",
		fmt.Sprintf("$ sluice migrate back %s --zone %s --done", quote(dir), z.Zone))
}
