package audit

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sluice/journal/event"
)

// manifestTitle is the first line of a manifest.
const manifestTitle = "sluice audit export 1"

// errManifest reports a manifest that is not byte for byte as it would be
// written.
var errManifest = errors.New("not a manifest of an audit export")

// manifest says what an export is: the text of a signed note.
type manifest struct {
	Origin string
	Size   int64 // of the checkpoint
	// Program is the software that made the export, as events name it; empty
	// where it is not known.
	Program string
	Former  []Former
	Zones   []Zone // none: all
	First   uint64 // sequences between which the events are
	Last    uint64
	Chunks  bool
	Events  int64 // lines of events
	Files   []manifestEntry
}

// manifestEntry is one file.
type manifestEntry struct {
	Path   string
	Bytes  int64
	SHA256 event.Hash
}

// whole reports whether all events that the checkpoint counts are there.
func (m manifest) whole() bool {
	return len(m.Zones) == 0 && m.First == 1 && m.Last == uint64(m.Size)
}

// has reports whether a zone is one of those that were asked for.
func (m manifest) has(id event.ZoneID) bool {
	return len(m.Zones) == 0 || slices.ContainsFunc(m.Zones, func(z Zone) bool { return z.ID == id })
}

// concerns reports whether an event of the whole instance is about a zone that
// was asked for.
func (m manifest) concerns(f event.Facts) bool {
	switch f := f.(type) {
	case *event.ZoneAdded:
		return m.has(f.ID)
	case *event.ZoneRemoved:
		return m.has(f.ID)
	}
	return false
}

// text is a line for each thing, a word and its values.
func (m manifest) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\norigin %s\nsize %d\n", manifestTitle, m.Origin, m.Size)
	if m.Program != "" {
		fmt.Fprintf(&b, "program %s\n", m.Program)
	}
	for _, f := range m.Former {
		b.WriteString(f.text())
	}
	for _, z := range m.Zones {
		fmt.Fprintf(&b, "zone %s %s\n", z.ID, z.Name)
	}
	fmt.Fprintf(&b, "first %d\nlast %d\nchunks %t\nevents %d\n", m.First, m.Last, m.Chunks, m.Events)
	for _, f := range m.Files {
		fmt.Fprintf(&b, "file %s %d %s\n", f.SHA256, f.Bytes, f.Path)
	}
	return b.String()
}

// parseManifest reads what text writes, and nothing else.
func parseManifest(text string) (m manifest, err error) {
	title, rest, _ := strings.Cut(text, "\n")
	if title != manifestTitle {
		return m, fmt.Errorf("%w: first line %.60q, want %q", errManifest, title, manifestTitle)
	}
	for line := range strings.Lines(rest) {
		word, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if err := m.line(word, value); err != nil {
			return m, fmt.Errorf("%w: line %.100q: %w", errManifest, line, err)
		}
	}
	if m.text() != text {
		return m, fmt.Errorf("%w: not in its canonical form", errManifest)
	}
	return m, nil
}

func (m *manifest) line(word, value string) (err error) {
	switch word {
	case "origin":
		m.Origin = value
	case "size":
		m.Size, err = strconv.ParseInt(value, 10, 64)
	case "program":
		m.Program = value
	case "former":
		var f Former
		size, key, _ := strings.Cut(value, " ")
		if f.Size, err = strconv.ParseUint(size, 10, 64); err == nil && key != noKey {
			f.Key, err = ParseVerifier(key)
		}
		if n := len(m.Former); err == nil && n > 0 && f.Size <= m.Former[n-1].Size {
			err = errors.New("out of order")
		}
		m.Former = append(m.Former, f)
	case "zone":
		id, name, _ := strings.Cut(value, " ")
		m.Zones = append(m.Zones, Zone{event.ZoneID(id), name})
	case "first":
		m.First, err = strconv.ParseUint(value, 10, 64)
	case "last":
		m.Last, err = strconv.ParseUint(value, 10, 64)
	case "chunks":
		m.Chunks, err = strconv.ParseBool(value)
	case "events":
		m.Events, err = strconv.ParseInt(value, 10, 64)
	case "file":
		var f manifestEntry
		sum, rest, _ := strings.Cut(value, " ")
		size, path, _ := strings.Cut(rest, " ")
		if err = f.SHA256.UnmarshalText([]byte(sum)); err == nil {
			f.Bytes, err = strconv.ParseInt(size, 10, 64)
		}
		f.Path = path
		m.Files = append(m.Files, f)
	default:
		err = errors.New("unknown word")
	}
	return err
}
