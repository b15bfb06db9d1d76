package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/cli/api"
	"sluice/cli/fleet"
	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/signer/zone"
	"sluice/xfr"
)

// Outcome is what became of a zone.
type Outcome string

// The outcomes of an import.
const (
	Planned   Outcome = "planned"   // what would be done; nothing was
	Published Outcome = "published" // it was added, and is signed and served here
	Here      Outcome = "here"      // it was here before, as the plan has it
	Refused   Outcome = "refused"   // nothing was done
	Failed    Outcome = "failed"    // it is here, and not served
)

// Imported is what became of a zone.
type Imported struct {
	Zone    string  `json:"zone"`
	Outcome Outcome `json:"outcome"`
	Text    string  `json:"text,omitempty"` // why, and what to do
	Serial  *uint32 `json:"serial,omitempty"`
	// Plan is how its keys are taken over; nil where it has none, and where it
	// was here before.
	Plan *pipeline.TakeoverPlan `json:"plan,omitempty"`
}

// ImportQuery says what is imported.
type ImportQuery struct {
	Zones  []string // none: all
	DryRun bool
	Now    time.Time
	// Tell hears of each zone once it is settled, in no order.
	Tell func(Imported)
}

// atOnce is how many zones are imported, or checked, at a time.
const atOnce = 8

// importer imports the zones of a folder.
type importer struct {
	client *api.Client
	dir    string
	q      ImportQuery
	plan   Plan
	fleet  fleet.Fleet
	wanted map[string]fleet.Zone   // the same zones, by name
	here   map[string]bool         // zones that are here already
	fresh  map[string]*PlannedZone // as the former signer has them now
	texts  map[string][]byte       // policies here, by name
	primes *xfr.Client
}

// Import brings in what a folder says: TSIG keys, tokens, policies, and each zone
// with its keys, once it was seen that these did not move since the plan was
// made. Zones that are here already, as the plan has them, are passed over. What
// became of each zone is in the result, sorted by name; the error is of what
// concerns them all. Errors: pipeline.ErrState where keys moved or something
// else is here, pipeline.ErrNotFound.
func Import(ctx context.Context, client *api.Client, dir string, q ImportQuery) ([]Imported, error) {
	full, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	im := &importer{client: client, dir: full, q: q, primes: xfr.NewClient(quick())}
	if im.plan, err = Load(full); err != nil {
		return nil, err
	}
	if im.fleet, err = fleet.Read(full); err != nil {
		return nil, err
	}
	im.wanted = map[string]fleet.Zone{}
	for _, z := range im.fleet.Zones {
		im.wanted[z.Name] = z
	}
	zones, err := im.plan.Select(q.Zones)
	if err != nil {
		return nil, err
	}
	if err := im.look(ctx); err != nil {
		return nil, err
	}
	if err := im.unmoved(ctx, zones); err != nil {
		return nil, err
	}
	if !q.DryRun {
		if err := im.bring(ctx, zones); err != nil {
			return nil, err
		}
	}
	return im.all(ctx, zones)
}

// look asks what is here already.
func (im *importer) look(ctx context.Context) error {
	list, err := im.client.Zones(ctx)
	if err != nil {
		return err
	}
	im.here = map[string]bool{}
	for _, z := range list {
		apex, err := zone.ParseName(z.Name)
		if err != nil {
			return err
		}
		im.here[zoneName(apex)] = true
	}
	policies, err := im.client.Policies(ctx)
	if err != nil {
		return err
	}
	im.texts = map[string][]byte{}
	for _, p := range policies {
		one, err := im.client.Policy(ctx, p.Name)
		if err != nil {
			return err
		}
		im.texts[p.Name] = []byte(one.Text)
	}
	return nil
}

// unmoved reads the former signer again, and refuses where keys of zones that
// are to come are no longer as the plan has them.
func (im *importer) unmoved(ctx context.Context, zones []PlannedZone) error {
	read, ok := Readers()[im.plan.Kind]
	if !ok {
		return fmt.Errorf("plan of kind %q: this program cannot read that signer: %w", im.plan.Kind, pipeline.ErrInvalid)
	}
	former, err := read(ctx, im.plan.Source, Options{Zones: im.plan.Only, Now: im.q.Now})
	if err != nil {
		return fmt.Errorf("read %s again: %w", im.plan.Source, err)
	}
	now, err := Make(im.plan.Kind, im.plan.Source, former, Options{Zones: im.plan.Only, Now: im.q.Now})
	if err != nil {
		return err
	}
	im.fresh = map[string]*PlannedZone{}
	for i := range now.Zones {
		im.fresh[now.Zones[i].Zone] = &now.Zones[i]
	}
	var moved []string
	for _, z := range zones {
		if z.Refused != "" || im.here[z.Zone] {
			continue
		}
		if text := z.moved(im.fresh[z.Zone]); text != "" {
			moved = append(moved, text)
		}
	}
	if len(moved) == 0 {
		return nil
	}
	return fmt.Errorf("%w: keys moved at %s since the plan was made: %s; end its key management, then make the plan anew: sluice migrate %s %s%s -o %s",
		pipeline.ErrState, Names()[im.plan.Kind], few(moved, 20), im.plan.Kind, quote(im.plan.Source), im.plan.only(), quote(im.dir))
}

// few lists the first of many.
func few(list []string, most int) string {
	if len(list) <= most {
		return strings.Join(list, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(list[:most], "; "), len(list)-most)
}

// moved says what of a zone's keys is otherwise than planned; "" where nothing
// is.
func (z PlannedZone) moved(now *PlannedZone) string {
	switch {
	case now == nil:
		return "zone " + z.Zone + " is gone"
	case now.Digest == z.Digest:
		return ""
	case now.Refused != "":
		return fmt.Sprintf("zone %s: %s", z.Zone, now.Refused)
	}
	var parts []string
	for _, k := range z.Keys {
		i := slices.IndexFunc(now.Keys, func(n PlannedKey) bool { return n.ID == k.ID })
		switch {
		case i < 0:
			parts = append(parts, fmt.Sprintf("key %d is gone", k.Tag))
		case now.Keys[i].State != k.State:
			parts = append(parts, fmt.Sprintf("key %d was %s and is %s", k.Tag, k.State, now.Keys[i].State))
		}
	}
	for _, k := range now.Keys {
		if !slices.ContainsFunc(z.Keys, func(o PlannedKey) bool { return o.ID == k.ID }) {
			parts = append(parts, fmt.Sprintf("key %d is new", k.Tag))
		}
	}
	if len(parts) == 0 {
		parts = []string{"times or states of its keys have changed"}
	}
	return fmt.Sprintf("zone %s: %s", z.Zone, strings.Join(parts, ", "))
}

// bring brings in what the zones need.
func (im *importer) bring(ctx context.Context, zones []PlannedZone) error {
	if err := im.bringTSIG(ctx); err != nil {
		return err
	}
	if err := im.bringKeystores(ctx); err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, p := range zones {
		if z, ok := im.wanted[p.Zone]; ok {
			wanted[z.Policy] = true
		}
	}
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		text, ours := im.fleet.Policies[name]
		has, known := im.texts[name]
		switch {
		case !ours && known:
		case !ours:
			return fmt.Errorf("policy %q is neither in %s nor here: %w", name, im.dir, pipeline.ErrNotFound)
		case known && !bytes.Equal(has, text):
			return fmt.Errorf("policy %q is here with another text: give that in %s another name, there and in zones.toml: %w",
				name, im.dir, pipeline.ErrState)
		case !known:
			missing = append(missing, name)
		}
	}
	return im.bringPolicies(ctx, missing)
}

// bringPolicies brings in policies that are not here.
func (im *importer) bringPolicies(ctx context.Context, names []string) error {
	for _, name := range names {
		put := pipeline.NewPolicy{Text: string(im.fleet.Policies[name]), Reason: "migration from " + Names()[im.plan.Kind], At: pipeline.NoPolicy}
		if _, err := im.client.PutPolicy(ctx, name, put); err != nil {
			return fmt.Errorf("policy %s: %w; or copy %s to the daemon's policy folder, then: sluice policy reload",
				name, err, quote(filepath.Join(im.dir, "policies", name+".toml")))
		}
	}
	return nil
}

// bringTSIG adds the TSIG keys that are not here.
func (im *importer) bringTSIG(ctx context.Context) error {
	if len(im.plan.TSIG) == 0 {
		return nil
	}
	has, err := im.client.TSIGKeys(ctx)
	if err != nil {
		return err
	}
	for _, k := range im.plan.TSIG {
		i := slices.IndexFunc(has, func(h pipeline.TSIGKey) bool { return strings.EqualFold(dotted(h.Name), dotted(k.Name)) && !h.Missing })
		if i >= 0 && !strings.EqualFold(dotted(has[i].Algorithm), dotted(k.Algorithm)) {
			return fmt.Errorf("TSIG key %s is here with the algorithm %s, not %s: it is another one; give one of them another name: %w",
				k.Name, has[i].Algorithm, k.Algorithm, pipeline.ErrState)
		}
		if i >= 0 {
			continue
		}
		secret, err := os.ReadFile(filepath.Join(im.dir, k.File))
		if err != nil {
			return fmt.Errorf("TSIG key %s: %w", k.Name, err)
		}
		add := pipeline.NewTSIG{Name: k.Name, Algorithm: k.Algorithm, Secret: strings.TrimSpace(string(secret))}
		if _, err := im.client.AddTSIG(ctx, add); err != nil {
			return fmt.Errorf("TSIG key %s: %w", k.Name, err)
		}
	}
	return nil
}

func dotted(name string) string { return strings.TrimSuffix(name, ".") + "." }

// maxPIN bounds a PIN in bytes.
const maxPIN = 256

// bringKeystores adds the tokens that are not here.
func (im *importer) bringKeystores(ctx context.Context) error {
	if len(im.plan.Keystores) == 0 {
		return nil
	}
	has, err := im.client.Keystores(ctx)
	if err != nil {
		return err
	}
	for _, k := range im.plan.Keystores {
		if slices.ContainsFunc(has, func(h pipeline.KeystoreInfo) bool { return h.Name == k.Name }) {
			continue
		}
		byHand := fmt.Sprintf("add the token yourself: sluice keystore add %s --pkcs11 %s --token %s --pin-file FILE", k.Name, quote(k.Module), quote(k.Token))
		if k.PINFile == "" {
			return fmt.Errorf("keystore %s: its PIN was not found: %w; %s", k.Name, pipeline.ErrState, byHand)
		}
		path := k.PINFile
		if !filepath.IsAbs(path) {
			path = filepath.Join(im.dir, path)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("keystore %s: read its PIN: %w; %s", k.Name, err, byHand)
		}
		pin := strings.TrimSpace(string(text))
		if pin == "" || len(pin) > maxPIN || strings.ContainsAny(pin, "\r\n<") {
			return fmt.Errorf("keystore %s: %s holds more than a PIN: %w; %s", k.Name, path, pipeline.ErrState, byHand)
		}
		if _, err := im.client.AddKeystore(ctx, pipeline.NewKeystore{Name: k.Name, Module: k.Module, Token: k.Token, PIN: pin}); err != nil {
			return fmt.Errorf("keystore %s: %w", k.Name, err)
		}
	}
	return nil
}

// all imports zones, several at a time.
func (im *importer) all(ctx context.Context, zones []PlannedZone) ([]Imported, error) {
	out := make([]Imported, len(zones))
	done := make([]bool, len(zones))
	var mu sync.Mutex
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, z := range zones {
		g.Go(func() error {
			if err := inner.Err(); err != nil {
				return err
			}
			one, err := im.one(inner, z)
			if err != nil {
				return fmt.Errorf("zone %s: %w", z.Zone, err)
			}
			mu.Lock()
			defer mu.Unlock()
			out[i], done[i] = one, true
			if im.q.Tell != nil {
				im.q.Tell(one)
			}
			return nil
		})
	}
	err := g.Wait()
	var settled []Imported
	for i := range out {
		if done[i] {
			settled = append(settled, out[i])
		}
	}
	return settled, err
}

// one imports one zone. An error is of the daemon or the folder, and ends it all.
func (im *importer) one(ctx context.Context, p PlannedZone) (Imported, error) {
	out := Imported{Zone: p.Zone, Outcome: Refused}
	wanted, ok := im.wanted[p.Zone]
	switch {
	case p.Refused != "":
		out.Text = p.Refused
		return out, nil
	case !ok:
		out.Text = "it is not in zones.toml"
		return out, nil
	}
	if im.here[p.Zone] {
		return im.there(ctx, p, wanted)
	}
	z, err := im.newZone(ctx, p, wanted)
	if err != nil {
		return out, err
	}
	if len(z.Import) > 0 {
		asked := z
		if _, known := im.texts[z.Policy]; !known && im.q.DryRun {
			asked.Policy = ""
			out.Text = fmt.Sprintf("looked at with policy default, since %s is not here yet", z.Policy)
		}
		plan, err := im.client.PlanTakeover(ctx, asked)
		if err != nil {
			return refusedBy(out, err)
		}
		out.Plan = &plan
		if plan.Refused != "" {
			out.Text = plan.Refused
			return out, nil
		}
	}
	if im.q.DryRun {
		out.Outcome = Planned
		return out, nil
	}
	if _, err := im.client.AddZone(ctx, z); err != nil {
		return refusedBy(out, err)
	}
	return im.settle(ctx, out, Published)
}

// refusedBy takes what the daemon says of one zone for its outcome; other errors
// end it all.
func refusedBy(out Imported, err error) (Imported, error) {
	if errors.Is(err, pipeline.ErrState) || errors.Is(err, pipeline.ErrInvalid) || errors.Is(err, pipeline.ErrNotFound) || errors.Is(err, api.ErrRequest) {
		out.Text = err.Error()
		return out, nil
	}
	return out, err
}

// settle waits until a zone is served, or is not.
func (im *importer) settle(ctx context.Context, out Imported, good Outcome) (Imported, error) {
	st, err := im.client.Await(ctx, out.Zone, nil)
	if err != nil {
		return out, err
	}
	out.Serial = st.PublishedSerial
	switch {
	case st.Published != nil:
		out.Outcome = good
	case st.LastError != "":
		out.Outcome, out.Text = Failed, st.LastError
	default:
		out.Outcome, out.Text = Failed, "it is not published: "+st.WaitsFor
	}
	return out, nil
}

// there looks at a zone that is here already.
func (im *importer) there(ctx context.Context, p PlannedZone, wanted fleet.Zone) (Imported, error) {
	out := Imported{Zone: p.Zone, Outcome: Refused}
	st, err := im.client.Zone(ctx, p.Zone)
	if err != nil {
		return out, err
	}
	var other []string
	source, err := pipeline.CanonicalSource(wanted.Source)
	if err != nil {
		return out, err
	}
	if st.Source != source {
		other = append(other, "source "+st.Source)
	}
	if st.Policy != wanted.Policy {
		other = append(other, "policy "+st.Policy)
	}
	for _, k := range p.Keys {
		if !slices.ContainsFunc(st.Keys, func(h keymgr.Key) bool { return h.ID == k.ID }) {
			other = append(other, fmt.Sprintf("no key %d", k.Tag))
		}
	}
	if len(other) > 0 {
		out.Text = fmt.Sprintf("a zone of that name is here with %s: it is left alone; where it is to go: sluice zone remove %s", strings.Join(other, ", "), p.Zone)
		return out, nil
	}
	if im.q.DryRun {
		out.Outcome, out.Serial = Here, st.PublishedSerial
		return out, nil
	}
	return im.settle(ctx, out, Here)
}

// newZone is what is asked of the daemon.
func (im *importer) newZone(ctx context.Context, p PlannedZone, wanted fleet.Zone) (pipeline.NewZone, error) {
	z := pipeline.NewZone{
		Name: wanted.Name, Source: wanted.Source, Policy: wanted.Policy, Reason: "migration from " + Names()[im.plan.Kind],
	}
	for _, k := range wanted.Keys {
		path := k.File
		if !filepath.IsAbs(path) {
			path = filepath.Join(im.dir, path)
		}
		z.Import = append(z.Import, pipeline.KeyFile{Path: path, Role: keymgr.Role(k.Role), Public: k.Public, Keystore: k.Keystore, ID: k.ID})
	}
	raise := func(n uint32) {
		if z.SerialFloor == nil || zone.Serial(*z.SerialFloor).Before(zone.Serial(n)) {
			z.SerialFloor = &n
		}
	}
	if text := wanted.SerialFloor; text != "" && text != "auto" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return z, fmt.Errorf("%w: serial-floor %q: want a serial, 0 to 4294967295", pipeline.ErrInvalid, text)
		}
		raise(uint32(n))
	}
	if now := im.fresh[p.Zone]; now != nil && now.Serial != nil {
		raise(*now.Serial)
	}
	if n, err := primarySerial(ctx, im.primes, p); err == nil {
		raise(n)
	}
	return z, ctx.Err()
}

// primarySerial asks the former signer for the serial that it gives out.
func primarySerial(ctx context.Context, client *xfr.Client, p PlannedZone) (uint32, error) {
	apex, err := zone.ParseName(p.Zone)
	if err != nil {
		return 0, err
	}
	if p.Primary == "" {
		return 0, errors.New("it is not known where the former signer gives the zone out")
	}
	address, _, _ := strings.Cut(p.Primary, "^")
	ep, err := xfr.ParseEndpoint(address)
	if err != nil {
		return 0, err
	}
	n, _, err := client.SOA(ctx, ep, apex)
	return uint32(n), err
}

// quick asks servers that may have ended without waiting for long.
func quick() xfr.ClientConfig { return xfr.ClientConfig{Tries: []time.Duration{time.Second}} }
