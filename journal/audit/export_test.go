package audit

import (
	"crypto/sha256"
	"maps"
	"slices"
	"testing/fstest"
)

// Resign writes the manifest anew so that it fits the files in dir.
func Resign(dir fstest.MapFS, key *Key, events int) error {
	text, _, err := open(string(dir[manifestFile].Data), key.Verifier())
	if err != nil {
		return err
	}
	m, err := parseManifest(text)
	if err != nil {
		return err
	}
	m.Events, m.Files = int64(events), nil
	for _, path := range slices.Sorted(maps.Keys(dir)) {
		if path != manifestFile {
			m.Files = append(m.Files, manifestEntry{path, int64(len(dir[path].Data)), sha256.Sum256(dir[path].Data)})
		}
	}
	text, err = sign(m.text(), key)
	dir[manifestFile] = &fstest.MapFile{Data: []byte(text)}
	return err
}
