package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"sluice/signer/zone"
)

// updateScheme begins the source of a zone that begins empty and is filled by
// dynamic updates: update:NS[,NS...].
const updateScheme = "update:"

// maxUpdateServers bounds the name servers of such a source.
const maxUpdateServers = 16

// IsUpdateSource reports whether a source is no place to read from: the zone
// begins with an SOA and NS records, and dynamic updates do the rest.
func IsUpdateSource(source string) bool { return strings.HasPrefix(source, updateScheme) }

// updateServers are the name servers that such a source names.
func updateServers(source string) ([]zone.Name, error) {
	var servers []zone.Name
	for _, word := range sourceWords(strings.TrimPrefix(source, updateScheme)) {
		n, err := zone.ParseName(word)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", source, err)
		}
		servers = append(servers, n)
	}
	switch {
	case len(servers) == 0:
		return nil, errors.New("source update: names no name server: want update:NS[,NS...], such as update:ns1.example.net,ns2.example.net")
	case len(servers) > maxUpdateServers:
		return nil, fmt.Errorf("source: %d name servers, at most %d are taken", len(servers), maxUpdateServers)
	}
	return servers, nil
}

// canonicalUpdateSource is such a source as events write it.
func canonicalUpdateSource(source string) (string, error) {
	servers, err := updateServers(source)
	if err != nil {
		return "", err
	}
	words := make([]string, 0, len(servers))
	for _, n := range servers {
		words = append(words, n.String())
	}
	return updateScheme + strings.Join(words, ","), nil
}

// beginningFile is the name of the file that such a zone begins with.
const beginningFile = "beginning"

// beginning is the zone file that such a zone begins with.
func beginning(source string) (fs.FS, error) {
	servers, err := updateServers(source)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "$TTL 3600\n@ IN SOA %s hostmaster 1 3600 900 1209600 300\n", servers[0])
	for _, n := range servers {
		fmt.Fprintf(&b, "@ IN NS %s\n", n)
	}
	return oneFile(b.Bytes()), nil
}

// oneFile is a folder with a file of the name beginningFile.
type oneFile []byte

// Open implements fs.FS.
func (f oneFile) Open(name string) (fs.File, error) {
	if name != beginningFile {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &openFile{Reader: bytes.NewReader(f), size: int64(len(f))}, nil
}

// openFile is that file.
type openFile struct {
	io.Reader
	size int64
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *openFile) Close() error               { return nil }
func (f *openFile) Name() string               { return beginningFile }
func (f *openFile) Size() int64                { return f.size }
func (f *openFile) Mode() fs.FileMode          { return 0o444 }
func (f *openFile) ModTime() time.Time         { return time.Time{} }
func (f *openFile) IsDir() bool                { return false }
func (f *openFile) Sys() any                   { return nil }
