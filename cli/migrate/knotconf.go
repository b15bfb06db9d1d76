package migrate

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// knotConf is a configuration of Knot DNS, in its simplified YAML.
type knotConf struct {
	blocks []*knotBlock
	files  int
}

// knotBlock is a section that has no identifier, or one block of a section that
// has.
type knotBlock struct {
	section, id string
	items       []knotItem
	at          place
}

// knotItem is one setting.
type knotItem struct {
	name   string
	values []string
	at     place
}

// place is where something stands.
type place struct {
	file string
	line int
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

func (p place) fault(format string, args ...any) error {
	return fmt.Errorf("%s: %w", p, fmt.Errorf(format, args...))
}

// Bounds of a configuration: a file in bytes, and files of one.
const (
	maxKnotConf  = 64 << 20
	maxKnotFiles = 1000
)

// readKnotConf reads a configuration with what it includes.
func readKnotConf(path string) (*knotConf, error) {
	c := &knotConf{}
	if err := c.read(path, 0); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *knotConf) read(path string, depth int) error {
	if c.files++; c.files > maxKnotFiles || depth > 16 {
		return fmt.Errorf("%s: more than %d files, or 16 levels of them, are included", path, maxKnotFiles)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxKnotConf {
		return fmt.Errorf("%s: more than %d bytes", path, maxKnotConf)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return c.parse(path, text, depth)
}

// parse reads the text of one file.
func (c *knotConf) parse(path string, text []byte, depth int) error {
	var block *knotBlock
	section := ""
	for n, raw := range bytes.Split(text, []byte("\n")) {
		at := place{path, n + 1}
		line := strings.TrimRight(string(raw), " \t\r")
		rest := strings.TrimLeft(line, " \t")
		if rest == "" || rest[0] == '#' || rest == "---" {
			continue
		}
		indented := len(rest) < len(line)
		dash := strings.HasPrefix(rest, "- ")
		if dash {
			rest = strings.TrimLeft(rest[2:], " ")
		}
		name, values, err := knotLine(rest)
		if err != nil {
			return at.fault("%w", err)
		}
		switch {
		case !indented && !dash && name == "include":
			if err := c.include(path, at, values, depth); err != nil {
				return err
			}
			section, block = "", nil
		case !indented && !dash:
			if len(values) > 0 {
				return at.fault("%q: a section has no value of its own", name)
			}
			section, block = name, nil
		case section == "":
			return at.fault("%q stands outside of a section", name)
		case dash:
			if len(values) != 1 {
				return at.fault("want one identifier after - %s:", name)
			}
			block = &knotBlock{section: section, id: values[0], at: at}
			c.blocks = append(c.blocks, block)
		default:
			if block == nil {
				block = &knotBlock{section: section, at: at}
				c.blocks = append(c.blocks, block)
			}
			block.items = append(block.items, knotItem{name, values, at})
		}
	}
	return nil
}

// include reads the files of a pattern, relative to the file that names them.
func (c *knotConf) include(path string, at place, values []string, depth int) error {
	if len(values) != 1 {
		return at.fault("want include: FILE")
	}
	pattern := values[0]
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(path), pattern)
	}
	if info, err := os.Stat(pattern); err == nil && info.IsDir() {
		pattern = filepath.Join(pattern, "*")
	}
	found, err := filepath.Glob(pattern)
	if err != nil {
		return at.fault("include %q: %w", values[0], err)
	}
	if len(found) == 0 {
		return at.fault("include %q: %w", values[0], fs.ErrNotExist)
	}
	slices.Sort(found)
	for _, file := range found {
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			continue
		}
		if err := c.read(file, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// knotLine reads "name: value", "name: [value, value]" or "name:".
func knotLine(text string) (name string, values []string, err error) {
	name, rest, ok := strings.Cut(text, ":")
	name = strings.TrimSpace(name)
	if !ok || name == "" || strings.ContainsAny(name, " \t\"'[]#") {
		return "", nil, errors.New("want a line of the form \"item: value\"")
	}
	rest = strings.TrimLeft(rest, " \t")
	if !strings.HasPrefix(rest, "[") {
		value, after, has, err := knotValue(rest, "#")
		if err != nil || !has {
			return name, nil, err
		}
		if after = strings.TrimLeft(after, " \t"); after != "" && after[0] != '#' {
			if name == "secret" || name == "config" {
				after = "something" // neither keys nor PINs are told
			}
			return "", nil, fmt.Errorf("%q after the value of %s: a value with blanks stands in double quotes", after, name)
		}
		return name, []string{value}, nil
	}
	rest = rest[1:]
	for {
		value, after, has, err := knotValue(strings.TrimLeft(rest, " \t"), ",]#")
		if err != nil {
			return "", nil, err
		}
		if has {
			values = append(values, value)
		}
		after = strings.TrimLeft(after, " \t")
		switch {
		case after == "":
			return "", nil, fmt.Errorf("the list of %s is not closed by ] on its line", name)
		case after[0] == ',':
			rest = after[1:]
		case after[0] == ']':
			if after = strings.TrimLeft(after[1:], " \t"); after != "" && after[0] != '#' {
				return "", nil, fmt.Errorf("%q after the list of %s", after, name)
			}
			return name, values, nil
		default:
			return "", nil, fmt.Errorf("%q in the list of %s: values are separated by commas", after, name)
		}
	}
}

// knotValue reads one value: in quotes, or up to a blank or one of ends. has is
// false where there is none.
func knotValue(text, ends string) (value, rest string, has bool, err error) {
	if text == "" || strings.ContainsRune(ends, rune(text[0])) {
		return "", text, false, nil
	}
	quote := text[0]
	if quote != '"' && quote != '\'' {
		i := strings.IndexAny(text, " \t"+strings.ReplaceAll(ends, "#", ""))
		if i < 0 {
			i = len(text)
		}
		return text[:i], text[i:], true, nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote == '"' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case text[i] == quote:
			return b.String(), text[i+1:], true, nil
		default:
			b.WriteByte(text[i])
		}
	}
	return "", "", false, errors.New("a quoted value is not closed on its line")
}

// sections lists the blocks of a section.
func (c *knotConf) sections(name string) (list []*knotBlock) {
	for _, b := range c.blocks {
		if b.section == name {
			list = append(list, b)
		}
	}
	return list
}

// find is the block of a section with an identifier; nil where there is none.
func (c *knotConf) find(section, id string) *knotBlock {
	for _, b := range c.blocks {
		if b.section == section && b.id == id {
			return b
		}
	}
	return nil
}

// get is the values of a setting; has is false where it is not set. A setting
// that stands several times has the values of all.
func (b *knotBlock) get(name string) (values []string, at place, has bool) {
	if b == nil {
		return nil, place{}, false
	}
	for _, i := range b.items {
		if i.name == name {
			values, has = append(values, i.values...), true
			if at.line == 0 {
				at = i.at
			}
		}
	}
	return values, at, has
}

// word is the only value of a setting; "" where it is not set.
func (b *knotBlock) word(name string) string {
	values, _, _ := b.get(name)
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// on reads a switch.
func (b *knotBlock) on(name string, usually bool) (bool, error) {
	values, at, has := b.get(name)
	if !has || len(values) == 0 {
		return usually, nil
	}
	switch strings.ToLower(values[0]) {
	case "on", "true":
		return true, nil
	case "off", "false":
		return false, nil
	}
	return false, at.fault("%s: %q: want on or off", name, values[0])
}

// time reads a length of time; has is false where it is not set.
func (b *knotBlock) time(name string) (d time.Duration, has bool, err error) {
	values, at, has := b.get(name)
	if !has || len(values) == 0 || values[0] == "" {
		return 0, false, nil
	}
	text := values[0]
	if text == "-1" {
		return 0, false, nil // Knot's word for none
	}
	unit := time.Second
	if i := strings.IndexByte("smhdwMy", text[len(text)-1]); i >= 0 {
		day := 24 * time.Hour
		unit = []time.Duration{time.Second, time.Minute, time.Hour, day, 7 * day, 30 * day, 365 * day}[i]
		text = text[:len(text)-1]
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || time.Duration(n) > (1<<31-1)*time.Second/unit {
		return 0, false, at.fault("%s: %q: want a length of time such as 90s, 1h or 14d, up to 68 years", name, values[0])
	}
	return time.Duration(n) * unit, true, nil
}

// count reads a number.
func (b *knotBlock) count(name string, usually int) (int, error) {
	values, at, has := b.get(name)
	if !has || len(values) == 0 {
		return usually, nil
	}
	n, err := strconv.ParseUint(values[0], 10, 31)
	if err != nil {
		return 0, at.fault("%s: %q: want a number", name, values[0])
	}
	return int(n), nil
}
