package file

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"time"

	"sluice/journal/event"
)

// stamp is the time format of BIND's files, in UTC.
const stamp = "20060102150405"

// lifeTimes says where each time stands: in a .private file, in a .state file,
// and in events.
func lifeTimes(l *event.KeyLife) []struct {
	private, state string
	at             *int64
} {
	return []struct {
		private, state string
		at             *int64
	}{
		{"Created", "Generated", &l.Created},
		{"Publish", "Published", &l.Published},
		{"Activate", "Active", &l.Activated},
		{"Revoke", "Revoked", &l.Revoked},
		{"Inactive", "Retired", &l.Retired},
		{"Delete", "Removed", &l.Removed},
		{"DSPublish", "DSPublish", &l.DSPublished},
		{"DSRemoved", "DSRemoved", &l.DSRemoved},
		{"SyncPublish", "PublishCDS", &l.CDS},
		{"SyncDelete", "DeleteCDS", &l.CDSDelete},
	}
}

// lifeSpreads says where in a .state file the state of each record and its
// change stand.
func lifeSpreads(l *event.KeyLife) []struct {
	state, change string
	spread        **event.Spread
} {
	return []struct {
		state, change string
		spread        **event.Spread
	}{
		{"DNSKEYState", "DNSKEYChange", &l.DNSKEY},
		{"ZRRSIGState", "ZRRSIGChange", &l.ZoneSigs},
		{"KRRSIGState", "KRRSIGChange", &l.KeySigs},
		{"DSState", "DSChange", &l.DS},
	}
}

// readLife reads what a former signer noted of a key: the timing metadata of
// its .private file and, where it is there, the .state file beside it, which
// has the last word. all says that it signed everything there. State is left
// empty.
func readLife(base string, private bindKey) (l *event.KeyLife, all bool, err error) {
	l = &event.KeyLife{}
	noted := false
	for _, row := range lifeTimes(l) {
		at, err := private.time(row.private)
		if err != nil {
			return nil, false, err
		}
		*row.at = at
		// When a key was made says nothing of its use.
		noted = noted || at != 0 && row.at != &l.Created
	}
	if err := private.chain(l); err != nil {
		return nil, false, err
	}
	path := base + ".state"
	text, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !noted {
			return l, false, nil
		}
		l.Notes = append(l.Notes, "no .state file: what caches hold follows from the times in the .private file alone")
		return l, false, nil
	case err != nil:
		return nil, false, err
	}
	fields, err := parseState(text, private, l)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", path, err)
	}
	return l, fields.get("KSK") == "yes" && fields.get("ZSK") == "yes", nil
}

// parseState reads a .state file.
func parseState(text []byte, private bindKey, l *event.KeyLife) (bindKey, error) {
	fields, err := parseFields(text)
	if err != nil {
		return nil, fmt.Errorf("not a BIND state file: %w", err)
	}
	if a, b := fields.number("Algorithm"), private.number("Algorithm"); a != b {
		return nil, fmt.Errorf("algorithm %q, the key has %q: it belongs to another key", a, b)
	}
	for _, row := range lifeTimes(l) {
		at, err := fields.time(row.state)
		switch {
		case err != nil:
			return nil, err
		case at != 0 && *row.at != 0 && at != *row.at:
			l.Notes = append(l.Notes, fmt.Sprintf("%s is %s in the .private file, and %s %s in the .state file: the latter counts",
				row.private, timeText(*row.at), row.state, timeText(at)))
		}
		if at != 0 {
			*row.at = at
		}
	}
	if err := fields.chain(l); err != nil {
		return nil, err
	}
	for _, row := range lifeSpreads(l) {
		word := fields.get(row.state)
		since, err := fields.time(row.change)
		switch {
		case err != nil:
			return nil, err
		case word == "":
			continue
		case !spreadWord(word):
			return nil, fmt.Errorf("%s %q: want hidden, rumoured, omnipresent or unretentive", row.state, word)
		}
		*row.spread = &event.Spread{State: word, Since: since}
	}
	if l.Goal = fields.get("GoalState"); l.Goal != "" && !spreadWord(l.Goal) {
		return nil, fmt.Errorf("GoalState %q: want hidden or omnipresent", l.Goal)
	}
	if l.DNSKEY == nil {
		l.Notes = append(l.Notes, "the .state file has no DNSKEYState: no signer has used it yet")
	}
	return fields, nil
}

func timeText(at int64) string { return time.Unix(at, 0).UTC().Format(time.RFC3339) }

func spreadWord(word string) bool {
	switch word {
	case "hidden", "rumoured", "omnipresent", "unretentive":
		return true
	}
	return false
}

func (f bindKey) get(name string) string { return f[strings.ToLower(name)] }

// number is the first word of a field.
func (f bindKey) number(name string) string {
	word, _, _ := strings.Cut(f.get(name), " ")
	return word
}

// time reads a field with a time, 0 where it is absent. A comment may follow.
func (f bindKey) time(name string) (int64, error) {
	word := f.number(name)
	if word == "" || word == "0" {
		return 0, nil
	}
	at, err := time.Parse(stamp, word)
	if err != nil || at.Unix() <= 0 {
		return 0, fmt.Errorf("field %s %q is no time as YYYYMMDDHHMMSS", name, word)
	}
	return at.Unix(), nil
}

// chain reads the lifetime and the keys before and after.
func (f bindKey) chain(l *event.KeyLife) error {
	for _, row := range []struct {
		name string
		most uint64
		set  func(uint64)
	}{
		{"Lifetime", math.MaxUint32, func(n uint64) { l.Lifetime = n }},
		{"Predecessor", math.MaxUint16, func(n uint64) { l.Predecessor = uint16(n) }},
		{"Successor", math.MaxUint16, func(n uint64) { l.Successor = uint16(n) }},
	} {
		word := f.number(row.name)
		if word == "" {
			continue
		}
		n, err := strconv.ParseUint(word, 10, 64)
		if err != nil || n > row.most {
			return fmt.Errorf("field %s %q is no number up to %d", row.name, word, row.most)
		}
		row.set(n)
	}
	return nil
}
