package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"sluice/journal/event"
)

// sealedReader reads the files of sealed values of an export, in their order.
type sealedReader struct {
	dir   fs.FS
	paths []string
	path  string // of the file that is read
	f     fs.File
	r     *bufio.Reader
	last  uint64 // sequence of the line before
	next  sealedLine
	have  bool // next holds a line
}

// sealedLine is a line of sealed values.
type sealedLine struct {
	seq  uint64
	line []byte // as event.DecodeSealed reads it
}

// peek returns the next line; io.EOF behind the last one.
func (s *sealedReader) peek() (sealedLine, error) {
	for !s.have {
		if s.f == nil {
			if len(s.paths) == 0 {
				return sealedLine{}, io.EOF
			}
			var err error
			s.path, s.paths = s.paths[0], s.paths[1:]
			if s.f, err = s.dir.Open(s.path); err != nil {
				return sealedLine{}, err
			}
			s.r = bufio.NewReaderSize(s.f, 64<<10)
		}
		line, err := readLine(s.r)
		if errors.Is(err, io.EOF) {
			err = s.close()
			if err != nil {
				return sealedLine{}, err
			}
			continue
		}
		if err == nil {
			s.next, err = parseSealed(line)
		}
		if err == nil && s.next.seq <= s.last {
			err = fmt.Errorf("values of event %d stand behind those of event %d", s.next.seq, s.last)
		}
		if err != nil {
			return sealedLine{}, err
		}
		s.have, s.last = true, s.next.seq
	}
	return s.next, nil
}

// close ends the file that is read; what was opened has to be closed.
func (s *sealedReader) close() error {
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f = nil
	return err
}

// of returns the sealed values of an event, nil where none are there. Values of
// an event before it that was not asked for are an error.
func (s *sealedReader) of(seq uint64, ev *event.Event) (map[string]event.SealedValue, error) {
	next, err := s.peek()
	switch {
	case errors.Is(err, io.EOF), err == nil && next.seq > seq:
		return nil, nil //nolint:nilnil // there need not be any
	case err != nil:
		return nil, err
	}
	s.have = false
	if next.seq < seq {
		return nil, fmt.Errorf("values of event %d, which is not here", next.seq)
	}
	return event.DecodeSealed(next.line, ev.Sealed)
}

// parseSealed reads {"seq":SEQ,"sealed":{...}} as an exporter writes it.
func parseSealed(line []byte) (sealedLine, error) {
	var l sealedLine
	head, rest, ok := bytes.Cut(line, []byte(","))
	if ok {
		_, err := fmt.Sscanf(string(head), `{"seq":%d`, &l.seq)
		ok = err == nil && string(head) == fmt.Sprintf(`{"seq":%d`, l.seq)
	}
	if l.line = append([]byte("{"), rest...); !ok || !event.IsSealedLine(l.line) {
		return l, fmt.Errorf("not a line of sealed values: %.60q", line)
	}
	return l, nil
}

// readSealed begins to read the sealed values that the manifest names.
func (v *verifier) readSealed() {
	v.sealed = &sealedReader{dir: v.dir}
	for _, f := range v.manifest.Files {
		if strings.HasPrefix(f.Path, sealedPrefix) {
			v.sealed.paths = append(v.sealed.paths, f.Path)
		}
	}
}

// checkSealed counts the sealed fields of an event and checks those that are
// there. Behind the first fault no more are: the reader does not stand where it
// should.
func (v *verifier) checkSealed(seq uint64, ev *event.Event) {
	v.report.Sealed += uint64(len(ev.Sealed))
	if v.sealed == nil {
		return
	}
	values, err := v.sealed.of(seq, ev)
	if err != nil {
		v.sealedFault(seq, err)
		return
	}
	v.report.SealedHere += uint64(len(values))
}

// endSealed looks that no values stand behind the last event.
func (v *verifier) endSealed() {
	if v.sealed == nil {
		return
	}
	next, err := v.sealed.peek()
	if err == nil {
		err = fmt.Errorf("values of event %d, which is not here", next.seq)
	}
	if !errors.Is(err, io.EOF) {
		v.sealedFault(0, err)
	}
	v.report.SealedDropped = v.report.Sealed - v.report.SealedHere
}

func (v *verifier) sealedFault(seq uint64, err error) {
	v.fault(v.sealed.path, seq, "%v", err)
	_ = v.sealed.close()
	v.sealed = nil
}
