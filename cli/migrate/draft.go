package migrate

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/pipeline"
)

// draft is a policy that is being written in our words.
type draft struct {
	former  string              // its name at the former signer
	title   string              // what it was made of
	lines   map[string]string   // TOML value and remark, by key with its table
	unequal []string            // as in Former
	lists   map[string][]string // lists that grow, by key with their table
}

func newDraft(former, title string) *draft {
	return &draft{former: former, title: title, lines: map[string]string{}, lists: map[string][]string{}}
}

// set gives a key a value as TOML has it; remark is what it was at the former
// signer.
func (d *draft) set(key, value, remark string) {
	if remark != "" {
		value += " # " + strings.Join(strings.Fields(remark), " ")
	}
	d.lines[key] = value
}

func (d *draft) word(key, value, remark string) { d.set(key, strconv.Quote(value), remark) }

func (d *draft) flag(key string, value bool, remark string) {
	d.set(key, strconv.FormatBool(value), remark)
}

func (d *draft) number(key string, value int, remark string) {
	d.set(key, strconv.Itoa(value), remark)
}

func (d *draft) duration(key string, value time.Duration, remark string) {
	d.word(key, pipeline.DurationText(value), remark)
}

// validity gives a role's keys an age; 0 is for ever. The shortest that policies
// take is a minute.
func (d *draft) validity(role string, age time.Duration, remark string) {
	key := "key-manager." + role + ".validity"
	if age == 0 {
		d.word(key, "forever", remark)
		return
	}
	d.duration(key, max(age, time.Minute), remark)
}

// add adds words to a list.
func (d *draft) add(key string, words ...string) {
	for _, w := range words {
		if !slices.Contains(d.lists[key], w) {
			d.lists[key] = append(d.lists[key], w)
		}
	}
}

func (d *draft) tell(format string, args ...any) {
	d.unequal = append(d.unequal, fmt.Sprintf(format, args...))
}

// signatures settles how long signatures live and when they are renewed, so that
// the three fit together. 0 is the default.
func (d *draft) signatures(lifetime, remain, interval time.Duration, words [3]string) {
	const day = 24 * time.Hour
	if lifetime == 0 {
		lifetime = 28 * day
	} else {
		d.duration("signer.signature-lifetime", lifetime, words[0])
	}
	if remain <= 0 || remain >= lifetime {
		remain, words[1] = lifetime/2, "half of the lifetime"
	}
	d.duration("signer.signature-remain-time", max(remain, time.Second), words[1])
	if interval <= 0 {
		interval, words[2] = min(day/2, (lifetime-remain)/4), ""
	}
	if interval >= lifetime-remain {
		interval, words[2] = (lifetime-remain)/4, "shorter than what the other two leave"
	}
	d.duration("signer.signature-refresh-interval", max(interval, time.Second), words[2])
}

// text is the policy file.
func (d *draft) text() []byte {
	lines := maps.Clone(d.lines)
	for key, list := range d.lists {
		lines[key] = tomlList(list)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n\nversion = \"v1\"\n", strings.Join(strings.Fields(d.title), " "))
	table := ""
	for _, key := range slices.SortedFunc(maps.Keys(lines), byTable) {
		i := strings.LastIndexByte(key, '.')
		if key[:i] != table {
			table = key[:i]
			fmt.Fprintf(&b, "\n[%s]\n", table)
		}
		fmt.Fprintf(&b, "%s = %s\n", key[i+1:], lines[key])
	}
	return b.Bytes()
}

// tomlList is a list of strings in TOML.
func tomlList(items []string) string {
	quoted := make([]string, 0, len(items))
	for _, item := range items {
		quoted = append(quoted, strconv.Quote(item))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// byTable compares keys by their table, then by themselves.
func byTable(a, b string) int {
	i, j := strings.LastIndexByte(a, '.'), strings.LastIndexByte(b, '.')
	if c := strings.Compare(a[:i], b[:j]); c != 0 {
		return c
	}
	return strings.Compare(a[i+1:], b[j+1:])
}

// policySet is the policies that zones need. Signers that set by zone what we set
// by policy get one for each way in which their zones are set.
type policySet struct {
	kind  string // the word of the former signer, which names begin with
	list  []Policy
	texts map[string]string // name by text
	names map[string]bool
}

// give has a zone get a policy. One with the same text is there once. Where the
// settings do not fit together here, that zone alone is refused.
func (s *policySet) give(z *Zone, want string, d *draft) {
	base := s.kind // the daemon may have policies of other names, for other zones
	if want != "" {
		base += "-" + policyName(want)
	}
	name, err := s.put(base, d.title, Policy{Former: d.former, Text: d.text(), Unequal: d.unequal})
	if err != nil {
		z.Refused = orElse(z.Refused, err.Error())
	}
	z.Policy = name
}

// put adds a policy under a name, or that name with a number where another one
// has it. title is what it was made of, for errors.
func (s *policySet) put(base, title string, p Policy) (string, error) {
	text := string(p.Text)
	if name, ok := s.texts[text]; ok {
		return name, nil
	}
	if s.texts == nil {
		s.texts, s.names = map[string]string{}, map[string]bool{}
	}
	name := base
	for n := 2; s.names[name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	if _, err := pipeline.Parse(name, p.Text); err != nil {
		return "", fmt.Errorf("%s its settings do not fit together as a policy here: %w", title, err)
	}
	s.texts[text], s.names[name] = name, true
	p.Name = name
	s.list = append(s.list, p)
	return name, nil
}

// policyName is a name as policies may have it.
func policyName(name string) string {
	name = safeName(name)
	if len(name) > 50 {
		name = name[:50]
	}
	return name
}
