package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"sluice/journal/event"
)

// maxFaults bounds the faults that a report lists.
const maxFaults = 100

// Fault is one thing that is wrong with an export.
type Fault struct {
	File string `json:"file,omitempty"`
	Seq  uint64 `json:"seq,omitempty"` // of the event that it is about
	What string `json:"what"`
}

// Report is what Verify found. The export is proved where FaultCount is 0.
type Report struct {
	Origin      string   `json:"origin"`
	Size        int64    `json:"size"`            // events that the checkpoint counts
	Root        string   `json:"root"`            // hex
	Whole       bool     `json:"whole"`           // all of them are here
	Zones       []string `json:"zones,omitempty"` // of a filtered export
	Events      int64    `json:"events"`
	Chains      int      `json:"chains"`      // of zones, with their last event
	Checkpoints int      `json:"checkpoints"` // earlier ones
	Chunks      int      `json:"chunks"`
	// Sealed is how many fields of events are sealed; of these SealedHere have
	// their values here, and fit, and SealedDropped do not.
	Sealed        uint64   `json:"sealed"`
	SealedHere    uint64   `json:"sealed_here"`
	SealedDropped uint64   `json:"sealed_dropped"`
	Cosigners     []string `json:"cosigners,omitempty"` // names of further keys under the checkpoint; not verified
	Faults        []Fault  `json:"faults"`              // the first ones
	FaultCount    int      `json:"fault_count"`
}

// verifier checks one export.
type verifier struct {
	dir      fs.FS
	key      *Verifier
	report   Report
	manifest manifest
	point    Checkpoint
	tree     Tree
	last     uint64                    // sequence of the last event read
	chains   map[event.ZoneID]chainEnd // as the events tell
	ends     map[event.ZoneID]Head     // as the heads of the export tell
	added    map[event.ZoneID]bool     // the events that added them were here
	points   []earlierPoint
	reached  int                 // of points: those whose size the tree has had
	wanted   map[event.Hash]bool // chunks that events name
	lists    []event.Chunk       // chunks that name further ones
	sealed   *sealedReader       // nil after a fault
}

// Verify checks an export against the public key that its reader knows from
// elsewhere. It holds one event at a time. The error tells only that reading
// itself failed.
func Verify(dir fs.FS, key *Verifier) (Report, error) {
	v := verifier{
		dir: dir, key: key,
		chains: map[event.ZoneID]chainEnd{}, added: map[event.ZoneID]bool{}, ends: map[event.ZoneID]Head{}, wanted: map[event.Hash]bool{},
	}
	v.report.Faults = []Fault{}
	if !v.openManifest() || !v.openCheckpoint() {
		return v.report, nil
	}
	v.readHeads()
	v.readPoints()
	v.readSealed()
	v.readEvents()
	v.endSealed()
	v.checkEnds()
	return v.report, v.checkFiles()
}

func (v *verifier) fault(file string, seq uint64, format string, args ...any) {
	v.report.FaultCount++
	if len(v.report.Faults) < maxFaults {
		v.report.Faults = append(v.report.Faults, Fault{file, seq, fmt.Sprintf(format, args...)})
	}
}

// openManifest reads and verifies the manifest.
func (v *verifier) openManifest() bool {
	raw, err := fs.ReadFile(v.dir, manifestFile)
	if err != nil {
		v.fault(manifestFile, 0, "%v", err)
		return false
	}
	text, _, err := open(string(raw), v.key)
	if err == nil {
		v.manifest, err = parseManifest(text)
	}
	if err != nil {
		v.fault(manifestFile, 0, "%v", err)
		return false
	}
	v.report.Origin, v.report.Size, v.report.Whole = v.manifest.Origin, v.manifest.Size, v.manifest.whole()
	for _, z := range v.manifest.Zones {
		v.report.Zones = append(v.report.Zones, z.Name)
	}
	return true
}

func (v *verifier) openCheckpoint() bool {
	raw, err := fs.ReadFile(v.dir, checkpointFile)
	if err == nil {
		v.point, v.report.Cosigners, err = ReadCheckpoint(string(raw), v.key)
	}
	switch {
	case err != nil:
		v.fault(checkpointFile, 0, "%v", err)
		return false
	case v.point.Size != v.manifest.Size || v.point.Origin != v.manifest.Origin:
		v.fault(checkpointFile, 0, "it is of %d events of %s, the manifest of %d of %s", v.point.Size, v.point.Origin, v.manifest.Size, v.manifest.Origin)
		return false
	}
	v.report.Root = v.point.Root.String()
	return true
}

// lines calls fn for each line of a file, without its end.
func (v *verifier) lines(path string, fn func(line []byte)) {
	f, err := v.dir.Open(path)
	if err != nil {
		v.fault(path, 0, "%v", err)
		return
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := readLine(r)
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			v.fault(path, 0, "%v", err)
			return
		}
		fn(line)
	}
}

// maxLine bounds a line of an export: an event, its proof and a little more;
// and a checkpoint with its cosignatures.
const maxLine = event.MaxLine + 64<<10

var errLine = fmt.Errorf("a line of more than %d bytes, or without its end", maxLine)

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if line = append(line, part...); len(line) > maxLine {
			return nil, errLine
		}
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, errLine
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// headLine is a line of headsFile.
type headLine struct {
	Index int64        `json:"index"`
	Zone  event.ZoneID `json:"zone"`
	N     uint64       `json:"n"`
	Hash  event.Hash   `json:"hash"`
	Proof []event.Hash `json:"proof"`
}

func (v *verifier) readHeads() {
	before := int64(-1)
	v.lines(headsFile, func(line []byte) {
		var h headLine
		if err := json.Unmarshal(line, &h); err != nil {
			v.fault(headsFile, 0, "%v", err)
			return
		}
		head := Head{Zone: h.Zone, N: h.N, Hash: h.Hash}
		if h.Index <= before {
			v.fault(headsFile, 0, "zone %s: out of order", h.Zone)
		}
		before = h.Index
		if err := checkInclusion(h.Proof, v.point.Zones, v.point.ZonesRoot, h.Index, event.RecordHash(head.Line())); err != nil {
			v.fault(headsFile, 0, "end of zone %s: %v of the checkpoint", h.Zone, err)
		}
		v.ends[h.Zone] = head
	})
}

// earlierPoint is a line of checkpointsFile.
type earlierPoint struct {
	Seq   uint64       `json:"seq"`
	Size  int64        `json:"size"`
	Proof []event.Hash `json:"proof"`
	Note  string       `json:"note"`
	point Checkpoint
}

func (v *verifier) readPoints() {
	keys := Keys{Present: v.key, Former: v.manifest.Former}
	v.lines(checkpointsFile, func(line []byte) {
		var p earlierPoint
		err := json.Unmarshal(line, &p)
		if err == nil {
			p.point, err = keys.ReadAt(p.Note, p.Seq)
		}
		switch {
		case err != nil:
			v.fault(checkpointsFile, p.Seq, "checkpoint: %v", err)
		case p.point.Size != p.Size:
			v.fault(checkpointsFile, p.Seq, "checkpoint of %d events stands as one of %d", p.point.Size, p.Size)
		case len(v.points) > 0 && p.Seq <= v.points[len(v.points)-1].Seq:
			v.fault(checkpointsFile, p.Seq, "out of order")
		default:
			if err := checkConsistency(p.Proof, v.point.Size, v.point.Root, p.Size, p.point.Root); err != nil {
				v.fault(checkpointsFile, p.Seq, "what is there now does not begin with the %d events of this checkpoint: %v", p.Size, err)
			}
			v.points = append(v.points, p)
			v.report.Checkpoints++
		}
	})
}

// eventLine is a line of events.
type eventLine struct {
	Seq   uint64          `json:"seq"`
	Proof []event.Hash    `json:"proof"`
	Event json.RawMessage `json:"event"`
}

// text writes a line as an exporter does.
func (l eventLine) text(whole bool) []byte {
	out := fmt.Appendf(nil, `{"seq":%d`, l.Seq)
	if !whole {
		out = append(append(out, `,"proof":`...), hashList(l.Proof)...)
	}
	return append(append(append(out, `,"event":`...), l.Event...), '}')
}

func (v *verifier) readEvents() {
	for _, f := range v.manifest.Files {
		if strings.HasPrefix(f.Path, eventsPrefix) {
			v.lines(f.Path, func(line []byte) { v.event(f.Path, line) })
		}
	}
	if len(v.manifest.Zones) == 0 && v.last != v.manifest.Last {
		v.fault(manifestFile, v.last, "events %d to %d are missing", v.last+1, v.manifest.Last)
	}
	if v.report.Events != v.manifest.Events {
		v.fault(manifestFile, 0, "there are %d events, the manifest says %d", v.report.Events, v.manifest.Events)
	}
	if v.manifest.whole() {
		v.checkRoot(v.point, checkpointFile, 0)
	}
}

// checkRoot compares what the events give with a checkpoint of them.
func (v *verifier) checkRoot(c Checkpoint, file string, seq uint64) {
	if v.tree.Size() == c.Size && v.tree.Root() != c.Root {
		v.fault(file, seq, "the %d events before do not give the root of this checkpoint", c.Size)
	} else if seq == 0 && v.tree.Size() != c.Size {
		v.fault(file, seq, "there are %d events, the checkpoint counts %d", v.tree.Size(), c.Size)
	}
}

// event checks one line of events.
func (v *verifier) event(file string, line []byte) {
	var l eventLine
	if err := json.Unmarshal(line, &l); err != nil {
		v.fault(file, v.last+1, "line of an event: %v", err)
		return
	}
	v.report.Events++
	if !bytes.Equal(l.text(v.manifest.whole()), line) {
		v.fault(file, l.Seq, "the line is not in its canonical form")
	}
	v.place(file, l)
	ev, err := event.Decode(l.Event)
	if err != nil {
		v.fault(file, l.Seq, "%v", err)
		return
	}
	v.checkSealed(l.Seq, &ev)
	v.link(file, l.Seq, l.Event, &ev)
	if v.manifest.Chunks && l.Seq >= v.manifest.First && l.Seq <= v.manifest.Last {
		for _, m := range event.Manifests(ev.Facts) {
			v.want(m.Chunks)
			v.want(m.Indirect)
			v.lists = append(v.lists, m.Indirect...)
		}
	}
	if f, ok := ev.Facts.(*event.JournalCheckpointed); ok {
		v.checkSigned(l.Seq, f)
	}
}

func (v *verifier) want(chunks []event.Chunk) {
	for _, c := range chunks {
		v.wanted[c.SHA256] = true
	}
}

// checkSigned compares a checkpoint among the events with the file of them.
func (v *verifier) checkSigned(seq uint64, f *event.JournalCheckpointed) {
	i, ok := slices.BinarySearchFunc(v.points, seq, func(p earlierPoint, seq uint64) int { return cmp.Compare(p.Seq, seq) })
	if !ok || v.points[i].Note != f.Note {
		v.fault(checkpointsFile, seq, "the checkpoint of this event is missing")
	}
}

// place checks where an event stands in the log.
func (v *verifier) place(file string, l eventLine) {
	hash := event.RecordHash(l.Event)
	before := max(v.last, v.manifest.First-1)
	switch all := len(v.manifest.Zones) == 0; {
	case l.Seq <= v.last || all && l.Seq < v.manifest.First:
		v.fault(file, l.Seq, "it stands behind event %d", before)
	case all && l.Seq > v.manifest.Last:
		v.fault(file, l.Seq, "the manifest ends with event %d", v.manifest.Last)
	case all && l.Seq > before+1:
		v.fault(file, l.Seq, "events %d to %d are missing", before+1, l.Seq-1)
	}
	if !v.manifest.whole() {
		if err := checkInclusion(l.Proof, v.point.Size, v.point.Root, int64(l.Seq)-1, hash); err != nil {
			v.fault(file, l.Seq, "it is not what the checkpoint counts as event %d: %v", l.Seq, err)
		}
		v.last = l.Seq
		return
	}
	v.last = l.Seq
	v.tree.Append(hash)
	for ; v.reached < len(v.points) && v.points[v.reached].Size <= v.tree.Size(); v.reached++ {
		v.checkRoot(v.points[v.reached].point, checkpointsFile, v.points[v.reached].Seq)
	}
}

// link checks an event against the one before in its chain.
func (v *verifier) link(file string, seq uint64, line []byte, ev *event.Event) {
	some := len(v.manifest.Zones) > 0
	if some && ev.Zone == event.Instance {
		if !v.manifest.concerns(ev.Facts) {
			v.fault(file, seq, "the manifest does not ask for it")
		}
		if f, ok := ev.Facts.(*event.ZoneAdded); ok {
			v.added[f.ID] = true
		}
		return
	}
	if !v.manifest.has(ev.Zone) {
		v.fault(file, seq, "the manifest does not ask for zone %s", ev.Zone)
	}
	head, known := v.chains[ev.Zone]
	switch {
	case known && ev.N != head.N+1:
		v.fault(file, seq, "it is number %d of zone %s and follows number %d", ev.N, ev.Zone, head.N)
	case known && ev.Prev != head.Hash:
		v.fault(file, seq, "it does not link to number %d of zone %s", head.N, ev.Zone)
	case !known && ev.N != 1 && (some && seq >= v.manifest.First || v.manifest.First == 1):
		v.fault(file, seq, "it is number %d of zone %s, and the ones before are missing", ev.N, ev.Zone)
	}
	v.chains[ev.Zone] = chainEnd{Head{Zone: ev.Zone, N: ev.N, Hash: event.RecordHash(line)}, seq}
}

// chainEnd is the last event of a zone in the export.
type chainEnd struct {
	Head
	seq uint64
}

// checkEnds compares the last event of each zone with what the checkpoint
// says.
func (v *verifier) checkEnds() {
	for _, z := range v.manifest.Zones {
		if _, ok := v.ends[z.ID]; !ok {
			v.fault(headsFile, 0, "the end of zone %s (%s) is missing", z.Name, z.ID)
		}
		if !v.added[z.ID] {
			v.fault(headsFile, 0, "the event that added zone %s (%s) is missing", z.Name, z.ID)
		}
	}
	if len(v.manifest.Zones) == 0 && int64(len(v.ends)) != v.point.Zones {
		v.fault(headsFile, 0, "%d zones, the checkpoint counts %d", len(v.ends), v.point.Zones)
	}
	for id, end := range v.ends {
		switch chain, ok := v.chains[id]; {
		case !v.manifest.has(id):
			v.fault(headsFile, 0, "the manifest does not ask for zone %s", id)
		case ok && chain.Head == end:
			v.report.Chains++
		case len(v.manifest.Zones) == 0 && v.manifest.Last < uint64(v.point.Size):
			// The stretch ends before the zone does.
		case len(v.manifest.Zones) == 0 && !ok && v.manifest.First > 1:
			// The zone ends before the stretch begins.
		case ok && chain.seq > v.manifest.Last:
			v.report.Chains++
		case !ok:
			v.fault(headsFile, 0, "all %d events of zone %s are missing", end.N, id)
		default:
			v.fault(headsFile, chain.seq, "zone %s ends here with number %d, at the checkpoint with %d", id, chain.N, end.N)
		}
	}
}

// checkFiles compares every file with the manifest.
func (v *verifier) checkFiles() error {
	v.readLists()
	listed := map[string]bool{manifestFile: true}
	for _, f := range v.manifest.Files {
		listed[f.Path] = true
		sum, size, err := v.sum(f.Path)
		switch {
		case err != nil:
			v.fault(f.Path, 0, "%v", err)
		case sum != f.SHA256 || size != f.Bytes:
			v.fault(f.Path, 0, "its content is not what the manifest names")
		}
		if name, ok := strings.CutPrefix(f.Path, chunksPrefix); ok {
			if name != f.SHA256.String() || !v.wanted[f.SHA256] {
				v.fault(f.Path, 0, "no event names this chunk")
			}
			delete(v.wanted, f.SHA256)
			v.report.Chunks++
		}
	}
	for sum := range v.wanted {
		v.fault(chunksPrefix+sum.String(), 0, "the chunk is missing")
	}
	return fs.WalkDir(v.dir, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !listed[path] {
			v.fault(path, 0, "the manifest does not name this file")
		}
		return err
	})
}

// readLists takes up the chunks that chunks name.
func (v *verifier) readLists() {
	for _, c := range v.lists {
		path := chunksPrefix + c.SHA256.String()
		raw, err := fs.ReadFile(v.dir, path)
		if err != nil {
			continue // checkFiles tells
		}
		list, err := event.DecodeChunkList(raw)
		if err != nil {
			v.fault(path, 0, "%v", err)
			continue
		}
		v.want(list)
	}
}

func (v *verifier) sum(path string) (sum event.Hash, size int64, err error) {
	f, err := v.dir.Open(path)
	if err != nil {
		return sum, 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	h.Sum(sum[:0])
	return sum, size, err
}

// ReadEvents calls fn for the events of an export, in order, and proves
// nothing. Sealed values stand in their places in the facts, event.Dropped where
// they are not there. An error of fn ends it and is returned.
func ReadEvents(dir fs.FS, fn func(seq uint64, ev *event.Event) error) error {
	paths, err := fs.Glob(dir, eventsPrefix+"*.jsonl")
	if err != nil {
		return err
	}
	v, sealed := verifier{dir: dir}, sealedReader{dir: dir}
	if sealed.paths, err = fs.Glob(dir, sealedPrefix+"*.jsonl"); err != nil {
		return err
	}
	defer func() { _ = sealed.close() }()
	for _, path := range paths {
		var failed error
		v.lines(path, func(line []byte) {
			if failed == nil {
				failed = readEvent(line, &sealed, fn)
			}
		})
		if failed != nil {
			return fmt.Errorf("%s: %w", path, failed)
		}
	}
	if v.report.FaultCount > 0 {
		return fmt.Errorf("%s: %s", v.report.Faults[0].File, v.report.Faults[0].What)
	}
	return nil
}

func readEvent(line []byte, sealed *sealedReader, fn func(seq uint64, ev *event.Event) error) error {
	var l eventLine
	if err := json.Unmarshal(line, &l); err != nil {
		return err
	}
	ev, err := event.Decode(l.Event)
	if err != nil {
		return err
	}
	values, err := sealed.of(l.Seq, &ev)
	if err != nil {
		return fmt.Errorf("%s: %w", sealed.path, err)
	}
	ev = event.Open(ev, values)
	return fn(l.Seq, &ev)
}
