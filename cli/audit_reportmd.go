package cli

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/journal/audit"
	"sluice/journal/event"
	"sluice/pipeline"
)

// maxReported bounds the versions that a report lists: a busy zone has tens of
// thousands, and csv has all.
const maxReported = 200

// reportLine is one event of a report.
type reportLine struct {
	seq  uint64
	at   time.Time
	zone string
	who  string
	text string
	// proof is what it can be checked by.
	proof string
}

// keyLife is what became of a key.
type keyLife struct {
	zone    string
	key     event.Key
	at      map[string]time.Time // by the type of the event
	planned time.Time            // when it is to be gone; zero for no plan
}

// version is a signed instance of a report.
type signedVersion struct {
	zone   string
	loaded uint64
	facts  *event.InstanceSigned
	worker string
}

// loadedFrom is a server that a zone was taken from, as it proved itself.
type loadedFrom struct {
	zone, address, key, algorithm, pin, name string
}

// span is a stretch of time in which something was seen, and how often.
type span struct {
	first, last time.Time
	count       uint64
}

func (s *span) take(at time.Time) {
	if s.count++; s.first.IsZero() {
		s.first = at
	}
	s.last = at
}

// report collects what a report shows.
type report struct {
	names              zoneNames
	crew               crew
	events             uint64
	first, last        time.Time
	published          map[string]uint64 // versions by zone
	zones, doors       []reportLine
	rollovers          []reportLine
	verdicts, troubles []reportLine
	access             []reportLine
	keys               map[string]*keyLife
	order              []string // of keys

	software map[string]*span
	peers    map[loadedFrom]*span
	loads    map[uint64]string        // what loaded instances were made from, by sequence
	signed   map[uint64]signedVersion // not published yet, by sequence
	versions []reportLine             // published, the newest maxReported
	omitted  uint64                   // versions before them
	steps    []rolloverStep
}

// rolloverStep is a step of a rollover: what it waited for, and when the next
// thing really happened.
type rolloverStep struct {
	zone     string
	rollover uint64
	step     uint64
	name     string
	began    time.Time
	formula  string
	planned  time.Time
	ended    time.Time
}

func newReport() *report {
	return &report{
		names: zoneNames{}, crew: crew{}, published: map[string]uint64{}, keys: map[string]*keyLife{},
		software: map[string]*span{}, peers: map[loadedFrom]*span{}, loads: map[uint64]string{}, signed: map[uint64]signedVersion{},
	}
}

// reportMarkdown writes the sections that a person reads.
func reportMarkdown(dir fs.FS, proof string, w io.Writer) error {
	r := newReport()
	if err := audit.ReadEvents(dir, r.take); err != nil {
		return err
	}
	fmt.Fprintf(w, "# Audit report\n\n%s\n\n%d events, %s to %s.\n", sentence(proof), r.events, when(r.first), when(r.last))
	r.table(w, "Zones", r.zones)
	fmt.Fprint(w, "\n## Versions published\n\n| zone | versions |\n|---|---|\n")
	for _, zone := range slices.Sorted(maps.Keys(r.published)) {
		fmt.Fprintf(w, "| %s | %d |\n", cell(zone), r.published[zone])
	}
	if r.omitted > 0 {
		fmt.Fprintf(w, "\nThe newest %d of them; --format csv has the others.\n", len(r.versions))
	}
	if len(r.versions) > 0 {
		r.table(w, "How they were made", r.versions)
	}
	r.softwareTable(w)
	r.peerTable(w)
	r.table(w, "What people did", r.doors)
	r.table(w, "Access", r.access)
	r.keyTable(w)
	r.table(w, "Rollovers and the parent", r.rollovers)
	r.stepTable(w)
	r.table(w, "Verdicts", r.verdicts)
	r.table(w, "Incidents", r.troubles)
	return nil
}

// sentence makes a text one.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }

// take sorts an event in.
func (r *report) take(seq uint64, ev *event.Event) error {
	worker := r.crew.of(ev)
	l := reportLine{
		seq, ev.Time, r.names.of(ev), actorText(ev.Actor.Name, ev.Actor.Door, ev.Actor.Role), pipeline.Describe(*ev), evidenceText(pipeline.Evidence(*ev)),
	}
	if worker != "" {
		l.who += ", " + worker
	}
	if r.events++; r.first.IsZero() {
		r.first = ev.Time
	}
	r.last = ev.Time
	noun, _, _ := strings.Cut(ev.Type, ".")
	switch noun {
	case "rollover", "ds":
		r.rollovers = append(r.rollovers, l)
		r.takeStep(l.zone, ev)
	case "review":
		if ev.Type != "review.requested" {
			r.verdicts = append(r.verdicts, l)
		}
	case "key":
		r.takeKey(l.zone, ev)
	case "access":
		r.access = append(r.access, l)
	}
	switch ev.Facts.(type) {
	case *event.ZoneAdded, *event.ZoneRemoved:
		r.zones = append(r.zones, l)
	case *event.LoadFailed, *event.SignFailed, *event.ReviewRejected, *event.ZoneHalted, *event.ZoneHeld, *event.ClockDoubted, *event.ReviewOverridden, *event.RolloverAborted, *event.AccessRefused:
		r.troubles = append(r.troubles, l)
	case *event.JournalExported, *event.TSIGExported, *event.KeyExported:
		r.access = append(r.access, l)
	}
	r.takeVersion(l, ev, worker)
	if ev.Actor.Person() {
		r.doors = append(r.doors, l)
	}
	return nil
}

// takeVersion notes what a version was made from, and by what.
func (r *report) takeVersion(l reportLine, ev *event.Event, worker string) {
	if s := event.SoftwareOf(ev.Facts); s != "" {
		if r.software[s] == nil {
			r.software[s] = &span{}
		}
		r.software[s].take(ev.Time)
	}
	switch f := ev.Facts.(type) {
	case *event.InstanceLoaded:
		r.loads[l.seq] = f.Source
		if who := f.PeerIdentity; who != nil {
			from := loadedFrom{l.zone, who.Address, who.Key, who.Algorithm, who.Pin, who.Name}
			if r.peers[from] == nil {
				r.peers[from] = &span{}
			}
			r.peers[from].take(ev.Time)
			r.loads[l.seq] = who.Address
		}
	case *event.InstanceSigned:
		r.signed[l.seq] = signedVersion{l.zone, f.Loaded, f, worker}
	case *event.InstancePublished:
		r.published[l.zone]++
		r.version(l, f)
		delete(r.signed, f.Signed)
	case *event.InstanceAbandoned:
		delete(r.signed, f.Instance)
	}
}

// version notes a published version.
func (r *report) version(l reportLine, f *event.InstancePublished) {
	made := r.signed[f.Signed]
	l.text = fmt.Sprintf("serial %d from l%d", f.Serial, f.Loaded)
	if source := r.loads[f.Loaded]; source != "" {
		l.text += " of " + source
	}
	l.proof = "signed_digest=" + f.SignedDigest.String()
	if s := made.facts; s != nil {
		l.text += fmt.Sprintf(": %d signatures made for %d RRsets, %d kept, %d dropped, %d denial records changed",
			s.Made, s.NewSets, s.Reused, s.Dropped, s.DenialChanged)
		l.proof += "; content_digest=" + s.ContentDigest.String()
		if s.Software != "" {
			l.proof += "; signed by " + strings.TrimPrefix(made.worker+", ", ", ") + s.Software
		}
	}
	if f.Software != "" {
		l.proof += "; let out by " + f.Software
	}
	r.versions = append(r.versions, l)
	if len(r.versions) > 2*maxReported {
		r.omitted += uint64(len(r.versions) - maxReported)
		r.versions = slices.Clone(r.versions[len(r.versions)-maxReported:])
	}
}

// takeStep notes what a rollover waits for, and when that was over.
func (r *report) takeStep(zone string, ev *event.Event) {
	var id uint64
	advanced, _ := ev.Facts.(*event.RolloverAdvanced)
	switch f := ev.Facts.(type) {
	case *event.RolloverAdvanced:
		id = f.Rollover
	case *event.RolloverCompleted:
		id = f.Rollover
	case *event.RolloverAborted:
		id = f.Rollover
	default:
		return
	}
	for i := range slices.Backward(r.steps) {
		s := &r.steps[i]
		if s.zone != zone || s.rollover != id || !s.ended.IsZero() {
			continue
		}
		if advanced != nil && advanced.Step == s.step {
			if advanced.Wait != nil {
				s.formula, s.planned = advanced.Wait.Formula, time.Unix(advanced.Wait.Earliest, 0).UTC()
			}
			return
		}
		s.ended = ev.Time
		break
	}
	if advanced == nil {
		return
	}
	s := rolloverStep{zone: zone, rollover: id, step: advanced.Step, name: advanced.Name, began: ev.Time}
	if advanced.Wait != nil {
		s.formula, s.planned = advanced.Wait.Formula, time.Unix(advanced.Wait.Earliest, 0).UTC()
	}
	r.steps = append(r.steps, s)
}

// takeKey notes what became of keys.
func (r *report) takeKey(zone string, ev *event.Event) {
	var ids []string
	for _, k := range event.Keys(ev.Facts) {
		if r.keys[k.ID] == nil {
			r.keys[k.ID] = &keyLife{zone: zone, key: k, at: map[string]time.Time{}}
			r.order = append(r.order, k.ID)
		}
		ids = append(ids, k.ID)
	}
	for _, id := range append(ids, event.KeyIDs(ev.Facts)...) {
		if life := r.keys[id]; life != nil {
			life.at[ev.Type] = ev.Time
		}
	}
	if f, ok := ev.Facts.(*event.KeyActivated); ok {
		for _, p := range f.Lives {
			if life := r.keys[p.ID]; life != nil {
				life.planned = ev.Time.Add(time.Duration(p.Seconds) * time.Second) //nolint:gosec // a policy's duration
			}
		}
	}
}

func (r *report) table(w io.Writer, title string, lines []reportLine) {
	fmt.Fprintf(w, "\n## %s\n\n", title)
	if len(lines) == 0 {
		fmt.Fprint(w, "None.\n")
		return
	}
	fmt.Fprint(w, "| seq | time | zone | who | what | evidence |\n|---|---|---|---|---|---|\n")
	for _, l := range lines {
		fmt.Fprintf(w, "| %d | %s | %s | %s | %s | %s |\n", l.seq, when(l.at), cell(l.zone), cell(l.who), cell(l.text), cell(l.proof))
	}
}

// softwareTable writes what software made loaded, signed and published instances.
func (r *report) softwareTable(w io.Writer) {
	fmt.Fprint(w, "\n## Software\n\n")
	if len(r.software) == 0 {
		fmt.Fprint(w, "None is named.\n")
		return
	}
	fmt.Fprint(w, "| software | from | to | instances |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(r.software)) {
		s := r.software[name]
		fmt.Fprintf(w, "| %s | %s | %s | %d |\n", cell(name), when(s.first), when(s.last), s.count)
	}
}

// peerTable writes whom zones were taken from.
func (r *report) peerTable(w io.Writer) {
	fmt.Fprint(w, "\n## Servers that zones were taken from\n\n")
	if len(r.peers) == 0 {
		fmt.Fprint(w, "None.\n")
		return
	}
	fmt.Fprint(w, "| zone | address | TSIG key | TLS | from | to | loads |\n|---|---|---|---|---|---|---|\n")
	all := slices.SortedFunc(maps.Keys(r.peers), func(a, b loadedFrom) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
	for _, p := range all {
		s := r.peers[p]
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %d |\n", cell(p.zone), cell(p.address),
			cell(strings.TrimSpace(p.key+" "+p.algorithm)), cell(strings.TrimSpace(p.name+" "+p.pin)), when(s.first), when(s.last), s.count)
	}
}

// stepTable writes the steps of rollovers: when each was planned to be over, and
// when it was.
func (r *report) stepTable(w io.Writer) {
	fmt.Fprint(w, "\n## Steps of rollovers\n\n")
	if len(r.steps) == 0 {
		fmt.Fprint(w, "None.\n")
		return
	}
	fmt.Fprint(w, "| zone | rollover | step | began | waits for | over at the earliest | was over |\n|---|---|---|---|---|---|---|\n")
	for _, s := range r.steps {
		fmt.Fprintf(w, "| %s | %d | %d, %s | %s | %s | %s | %s |\n", cell(s.zone), s.rollover, s.step, cell(s.name), when(s.began),
			cell(s.formula), whenSet(s.planned), whenSet(s.ended))
	}
}

// whenSet writes a time; nothing where there is none.
func whenSet(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return when(t)
}

// keyTable writes the lives of keys.
func (r *report) keyTable(w io.Writer) {
	fmt.Fprint(w, "\n## Keys\n\n")
	if len(r.order) == 0 {
		fmt.Fprint(w, "None.\n")
		return
	}
	fmt.Fprint(w, "| zone | key | role | algorithm | tag | kept in | made | published | signing | planned until | retired | removed | destroyed |\n"+
		"|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, id := range r.order {
		k := r.keys[id]
		at := func(types ...string) string {
			for _, t := range types {
				if at, ok := k.at[t]; ok {
					return when(at)
				}
			}
			return ""
		}
		fmt.Fprintf(w, "| %s | %s | %s | %d | %d | %s | %s | %s | %s | %s | %s | %s | %s |\n", cell(k.zone), id, k.key.Role, k.key.Algorithm, k.key.Tag,
			cell(k.key.Keystore), at("key.generated", "key.imported"), at("key.published", "key.activated"), at("key.activated", "key.introduced"),
			whenSet(k.planned), at("key.retired", "key.withdrawn"), at("key.removed"), at("key.destroyed"))
	}
}

// cell makes a text fit a cell of a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(text)
}
