package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// configLines is where a config file's keys stand: the lines, from 1, of each
// dotted key, and of each table by its name in brackets.
type configLines struct {
	text []byte
	keys map[string][]int
}

func readConfigLines(text []byte) configLines {
	l := configLines{text: text, keys: map[string][]int{}}
	table, n := "", 0
	for line := range bytes.Lines(text) {
		n++
		s := strings.TrimSpace(string(line))
		if strings.HasPrefix(s, "[") {
			name, _, _ := strings.Cut(strings.Trim(s, "[ "), "]")
			name = strings.TrimSpace(name)
			l.keys["["+name+"]"] = append(l.keys["["+name+"]"], n)
			table = name + "."
			continue
		}
		if name, _, ok := strings.Cut(s, "="); ok && !strings.HasPrefix(s, "#") {
			key := table + strings.Trim(strings.TrimSpace(name), `"'`)
			l.keys[key] = append(l.keys[key], n)
		}
	}
	return l
}

// at is the line of a key, or the one below it where word stands; 0 where it
// cannot be told.
func (l configLines) at(key, word string) int {
	if len(l.keys[key]) == 0 {
		return 0
	}
	first, n := l.keys[key][0], 0
	for line := range bytes.Lines(l.text) {
		n++
		if n >= first && word != "" && bytes.Contains(line, []byte(word)) {
			return n
		}
	}
	return first
}

// again is the line where a key or table stands for the second time; of a key
// the last part is enough.
func (l configLines) again(name string) int {
	for _, key := range slices.Sorted(maps.Keys(l.keys)) {
		if lines := l.keys[key]; len(lines) > 1 && (key == name || strings.HasSuffix(key, "."+name)) {
			return lines[1]
		}
	}
	return 0
}

// fault is an error with file and, where it is known, line.
func fault(path string, line int, format string, args ...any) error {
	if line > 0 {
		path = fmt.Sprintf("%s:%d", path, line)
	}
	return fmt.Errorf("%s: %w", path, fmt.Errorf(format, args...))
}

// decodeFault gives a line to what the TOML decoder says without one.
func (l configLines) decodeFault(path string, err error) error {
	text := strings.TrimPrefix(err.Error(), "toml: ")
	if m := regexp.MustCompile(`^key (.+) is already defined$`).FindStringSubmatch(text); m != nil {
		return fault(path, l.again(m[1]), "key %s stands twice", m[1])
	}
	if m := regexp.MustCompile(`^table (.+) already exists$`).FindStringSubmatch(text); m != nil {
		return fault(path, l.again("["+m[1]+"]"), "table %s stands twice", m[1])
	}
	// The decoder names Go types here.
	m := regexp.MustCompile(`TOML (\w+) into struct field cli\.(\w+)\.(\w+) `).FindStringSubmatch(text)
	if m == nil {
		return fault(path, 0, "%s", text)
	}
	key, want := configField(reflect.TypeFor[config](), "", m[2], m[3])
	return fault(path, l.at(key, ""), "%s: want %s, not a TOML %s", key, want, m[1])
}

// on is the key that stands on a line; empty where none does.
func (l configLines) on(line int) string {
	for key, lines := range l.keys {
		if slices.Contains(lines, line) {
			return key
		}
	}
	return ""
}

// decodeText is what the TOML decoder found on a line, without the Go types that
// it names, and with the key that it does not.
func (l configLines) decodeText(err *toml.DecodeError, line int) string {
	text := strings.TrimPrefix(err.Error(), "toml: ")
	if m := regexp.MustCompile(`^cannot store TOML (\w+) into a Go (\w+)$`).FindStringSubmatch(text); m != nil {
		want := map[string]string{"slice": "a list of strings", "bool": "true or false", "int": "a number", "struct": "a table"}[m[2]]
		return fmt.Sprintf("%s: want %s, not a TOML %s", l.on(line), cmp.Or(want, "a "+m[2]), m[1])
	}
	if text == "float cannot be assigned to int" {
		return l.on(line) + ": want a whole number"
	}
	return text
}

// configField finds the key of a struct's field, and says what it takes.
func configField(t reflect.Type, prefix, owner, field string) (key, want string) {
	for f := range t.Fields() {
		name := prefix + f.Tag.Get("toml")
		if t.Name() == owner && f.Name == field {
			return name, configKind(f.Type)
		}
		if f.Type.Kind() == reflect.Struct {
			if key, want := configField(f.Type, name+".", owner, field); key != "" {
				return key, want
			}
		}
	}
	return "", ""
}

func configKind(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.Struct:
		return "a table"
	case t.Kind() == reflect.Slice:
		return "a list of strings"
	case t == reflect.TypeFor[int]():
		return "a number"
	}
	return "a string"
}
