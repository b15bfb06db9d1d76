package cli

import (
	"bytes"
	"errors"
	"io"
	"strconv"
)

// dumpRecord is a record of zone dump with --json.
type dumpRecord struct {
	Owner string `json:"owner"`
	TTL   uint32 `json:"ttl"`
	Class string `json:"class"`
	Type  string `json:"type"`
	RData string `json:"rdata"` // in presentation form
}

// recordLines takes a zone file as zone.Writer writes it, one record a line
// with tabs between its fields, and gives each record to put.
type recordLines struct {
	put  func(dumpRecord) error
	rest []byte // a line that has no end yet
}

var errRecordLine = errors.New("the daemon sent a line that is no record")

// Write takes the next part of the file.
func (l *recordLines) Write(p []byte) (int, error) {
	taken := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.rest = append(l.rest, p...)
			return taken, nil
		}
		line := p[:i]
		if len(l.rest) > 0 {
			l.rest = append(l.rest, line...)
			line = l.rest
		}
		if err := l.line(line); err != nil {
			return 0, err
		}
		l.rest, p = l.rest[:0], p[i+1:]
	}
}

func (l *recordLines) line(line []byte) error {
	fields := bytes.SplitN(line, []byte{'\t'}, 5)
	if len(fields) < 5 {
		return errRecordLine
	}
	ttl, err := strconv.ParseUint(string(fields[1]), 10, 32)
	if err != nil {
		return errRecordLine
	}
	return l.put(dumpRecord{
		Owner: string(fields[0]), TTL: uint32(ttl), Class: string(fields[2]), Type: string(fields[3]), RData: string(fields[4]),
	})
}

// close reports a last line that has no end.
func (l *recordLines) close() error {
	if len(l.rest) > 0 {
		return io.ErrUnexpectedEOF
	}
	return nil
}
