package migrate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of a configuration of named.
const (
	maxConf     = 64 << 20 // bytes of all its files
	maxIncludes = 10_000
	maxDepth    = 64 // of blocks, and of files that include each other
)

// node is a word or a block of a statement.
type node struct {
	text  string
	block block
	is    bool // it is a block
}

// statement is what stands before a semicolon.
type statement struct {
	nodes []node
	file  string
	line  int
}

// block is the statements between braces, or of a whole file.
type block []statement

func (s statement) at() string { return fmt.Sprintf("%s:%d", s.file, s.line) }

// word is the nth word, "" where there is none.
func (s statement) word(n int) string {
	for _, w := range s.nodes {
		if w.is {
			continue
		}
		if n == 0 {
			return w.text
		}
		n--
	}
	return ""
}

// words is all words.
func (s statement) words() (out []string) {
	for _, w := range s.nodes {
		if !w.is {
			out = append(out, w.text)
		}
	}
	return out
}

// inner is the first block, nil where there is none.
func (s statement) inner() (b block, ok bool) {
	for _, w := range s.nodes {
		if w.is {
			return w.block, true
		}
	}
	return nil, false
}

// after is the word that follows a word.
func (s statement) after(word string) string {
	words := s.words()
	if i := slices.Index(words, word); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}

// all is the statements that begin with a word.
func (b block) all(word string) (out []statement) {
	for _, s := range b {
		if s.word(0) == word {
			out = append(out, s)
		}
	}
	return out
}

// last is the last statement that begins with a word: it counts where there are
// several.
func (b block) last(word string) (s statement, ok bool) {
	if list := b.all(word); len(list) > 0 {
		return list[len(list)-1], true
	}
	return statement{}, false
}

// confReader reads a configuration with what it includes.
type confReader struct {
	open     func(path string) ([]byte, error)
	glob     func(pattern string) ([]string, error)
	size     int
	includes int
	dir      string // that named works in, where the configuration has said so
}

// readConf reads named.conf and all files that it includes. Errors name file and
// line.
func readConf(path string) (block, error) {
	r := &confReader{open: openBounded, glob: filepath.Glob}
	return r.file(path, 0)
}

func openBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	return io.ReadAll(io.LimitReader(f, maxConf+1))
}

func (r *confReader) file(path string, depth int) (block, error) {
	text, err := r.open(path)
	if err != nil {
		return nil, err
	}
	if r.size += len(text); r.size > maxConf {
		return nil, fmt.Errorf("%s: the configuration has more than %d bytes", path, maxConf)
	}
	p := &confParser{r: r, text: text, file: path, line: 1, files: depth}
	return p.block(0, true)
}

// confParser reads one file.
type confParser struct {
	r     *confReader
	text  []byte
	file  string
	line  int
	files int // how deep files include each other
}

func (p *confParser) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", p.file, p.line, fmt.Sprintf(format, args...))
}

// skip passes over space and comments.
func (p *confParser) skip() error {
	for len(p.text) > 0 {
		switch c := p.text[0]; {
		case c == '\n':
			p.line++
			p.text = p.text[1:]
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
			p.text = p.text[1:]
		case c == '#', p.comment('/'):
			end := slices.Index(p.text, '\n')
			if end < 0 {
				end = len(p.text)
			}
			p.text = p.text[end:]
		case p.comment('*'):
			begin := p.line
			end := bytes.Index(p.text[2:], []byte("*/"))
			if end < 0 {
				p.line = begin
				return p.errorf("a comment without an end")
			}
			p.line += bytes.Count(p.text[:end+4], []byte("\n"))
			p.text = p.text[end+4:]
		default:
			return nil
		}
	}
	return nil
}

// comment reports whether a comment begins, with a slash and this.
func (p *confParser) comment(second byte) bool {
	return len(p.text) > 1 && p.text[0] == '/' && p.text[1] == second
}

// block reads statements up to the end of the block, or of the file.
func (p *confParser) block(depth int, top bool) (block, error) {
	if depth > maxDepth {
		return nil, p.errorf("blocks stand in each other more than %d deep", maxDepth)
	}
	var out block
	for {
		if err := p.skip(); err != nil {
			return nil, err
		}
		switch {
		case len(p.text) == 0 && top:
			return out, nil
		case len(p.text) == 0:
			return nil, p.errorf("the file ends within a block")
		case p.text[0] == '}' && top:
			return nil, p.errorf("} without {")
		case p.text[0] == '}':
			p.text = p.text[1:]
			return out, nil
		case p.text[0] == ';':
			p.text = p.text[1:]
			continue
		}
		s, err := p.statement(depth)
		if err != nil {
			return nil, err
		}
		if s.word(0) == "include" && len(s.nodes) == 2 {
			more, err := p.include(s)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
			continue
		}
		if s.word(0) == "directory" {
			p.r.dir = s.word(1)
		}
		out = append(out, s)
	}
}

// statement reads up to a semicolon.
func (p *confParser) statement(depth int) (statement, error) {
	s := statement{file: p.file, line: p.line}
	for {
		if err := p.skip(); err != nil {
			return s, err
		}
		if len(p.text) == 0 {
			return s, fmt.Errorf("%s: a statement without its semicolon", s.at())
		}
		switch p.text[0] {
		case ';':
			p.text = p.text[1:]
			return s, nil
		case '}':
			return s, fmt.Errorf("%s: a statement without its semicolon", s.at())
		case '{':
			p.text = p.text[1:]
			b, err := p.block(depth+1, false)
			if err != nil {
				return s, err
			}
			s.nodes = append(s.nodes, node{block: b, is: true})
		case '"':
			text, err := p.quoted()
			if err != nil {
				return s, err
			}
			s.nodes = append(s.nodes, node{text: text})
		default:
			s.nodes = append(s.nodes, node{text: p.plain()})
		}
	}
}

func (p *confParser) quoted() (string, error) {
	var b strings.Builder
	for i := 1; i < len(p.text); i++ {
		switch c := p.text[i]; c {
		case '"':
			p.text = p.text[i+1:]
			return b.String(), nil
		case '\n':
			return "", p.errorf("a string without an end")
		case '\\':
			if i+1 < len(p.text) && p.text[i+1] != '\n' {
				i++
			}
			b.WriteByte(p.text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", p.errorf("a string without an end")
}

// plain reads a word without quotes; it has one byte at least.
func (p *confParser) plain() string {
	i := 1
	for ; i < len(p.text); i++ {
		c := p.text[i]
		if c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || c == '\v' || c == ';' || c == '{' || c == '}' || c == '"' {
			break
		}
		if c == '/' && i+1 < len(p.text) && (p.text[i+1] == '/' || p.text[i+1] == '*') {
			break
		}
	}
	word := string(p.text[:i])
	p.text = p.text[i:]
	return word
}

// include reads the files that a statement names.
func (p *confParser) include(s statement) (block, error) {
	if p.files >= maxDepth {
		return nil, fmt.Errorf("%s: files include each other more than %d deep", s.at(), maxDepth)
	}
	name := s.word(1)
	var paths []string
	switch {
	case filepath.IsAbs(name):
		paths = []string{name}
	case p.r.dir != "":
		paths = []string{filepath.Join(p.r.dir, name), filepath.Join(filepath.Dir(p.file), name)}
	default:
		paths = []string{filepath.Join(filepath.Dir(p.file), name)}
	}
	var out block
	for i, path := range paths {
		found := []string{path}
		if strings.ContainsAny(path, "*?[") {
			var err error
			if found, err = p.r.glob(path); err != nil {
				return nil, fmt.Errorf("%s: include %q: %w", s.at(), name, err)
			}
		}
		for _, one := range found {
			if p.r.includes++; p.r.includes > maxIncludes {
				return nil, fmt.Errorf("%s: more than %d files are included", s.at(), maxIncludes)
			}
			b, err := p.r.file(one, p.files+1)
			if errors.Is(err, os.ErrNotExist) && i+1 < len(paths) {
				found = nil
				break
			}
			if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) && pathErr.Path == one {
				return nil, fmt.Errorf("%s: include: %w", s.at(), err)
			}
			if err != nil {
				return nil, err
			}
			out = append(out, b...)
		}
		if len(found) > 0 {
			return out, nil
		}
	}
	return out, nil
}
