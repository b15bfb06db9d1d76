package migrate

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/keymgr"
	"sluice/keymgr/file"
	"sluice/signer/zone"
)

// keyFolders is where the keys of a policy are: its key-directory, and the
// folders of the stores that it names (named 9.20).
func (r *bindReader) keyFolders(rule, dir string) []string {
	dirs := []string{dir}
	b, _ := r.rules[rule].inner()
	keys, _ := b.last("keys")
	list, _ := keys.inner()
	for _, k := range list {
		at, ok := r.stores[k.after("key-store")].last("directory")
		if folder := below(r.dir, at.word(1)); ok && !slices.Contains(dirs, folder) {
			dirs = append(dirs, folder)
		}
	}
	return dirs
}

// readKeys reads the keys of a zone out of folders.
func (r *bindReader) readKeys(one *Zone, z bindZone, apex zone.Name, dirs []string) error {
	var entries []fs.DirEntry
	in := map[string]string{} // folders, by file
	for _, dir := range dirs {
		found, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			one.Refused = fmt.Sprintf("its key-directory %s is not there", dir)
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: zone %s: key-directory: %w", z.at.at(), z.name, err)
		}
		for _, e := range found {
			if _, twice := in[e.Name()]; !twice {
				in[e.Name()], entries = dir, append(entries, e)
			}
		}
	}
	prefix, _, _ := strings.Cut(file.FileName(apex, 0, 0), "+")
	gone := 0
	where := strings.Join(dirs, " and ")
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".key")
		if !ok || !strings.HasPrefix(strings.ToLower(base), strings.ToLower(prefix)+"+") {
			continue
		}
		k, present, err := r.readKey(filepath.Join(in[e.Name()], base), apex)
		switch {
		case err != nil:
			one.Refused = err.Error()
			return nil //nolint:nilerr // of this zone alone
		case !present:
			gone++
		default:
			one.Keys = append(one.Keys, k)
		}
	}
	if gone > 0 {
		one.Notes = append(one.Notes, fmt.Sprintf("%d keys in %s are gone from the zone: they are left out", gone, where))
	}
	if len(one.Keys) == 0 {
		one.Refused = fmt.Sprintf("named is to sign it, and %s holds no key of it", where)
	}
	return nil
}

// readKey reads one key; present says that caches may know of it.
func (r *bindReader) readKey(base string, apex zone.Name) (k Key, present bool, err error) {
	owner, rdata, ttl, err := file.ReadPublic(base + ".key")
	if err != nil {
		return k, false, err
	}
	if !owner.Equal(apex) {
		return k, false, fmt.Errorf("%s.key belongs to zone %s", base, owner)
	}
	k = Key{Algorithm: rdata[3], Tag: zone.KeyTag(rdata)}
	k.DNSKEY = dnskeyText(apex, ttl, rdata)
	if binary.BigEndian.Uint16(rdata)&keymgr.FlagRevoke != 0 {
		return k, true, nil // published, and signs nothing that counts
	}
	private, err := os.ReadFile(base + ".private")
	if errors.Is(err, fs.ErrNotExist) {
		return k, true, nil
	}
	if err != nil {
		return k, false, err
	}
	if inHSM(private) {
		return k, false, fmt.Errorf("key %d is on a token, %s.private only names it: add the token here (sluice keystore add), and the zone by hand: sluice zone add, with --import-ksk-key or --import-zsk-key KEYSTORE:ID:%[2]s.key for each key (sluice help takeover)", k.Tag, base)
	}
	key, err := file.LookAt(base+".private", apex.String(), "")
	if err != nil {
		return k, false, err
	}
	k.Role, k.Life = keymgr.Role(key.Role), key.Life
	if state, _ := keymgr.ReadLife(k.Life, k.Role, r.o.Now); state == keymgr.Removed && !r.recent(k) {
		return k, false, nil
	}
	k.Private = private
	return k, true, nil
}

// recent reports whether caches may still hold a key that was removed.
func (r *bindReader) recent(k Key) bool {
	return k.Life != nil && k.Life.DNSKEY != nil && k.Life.DNSKEY.State == "unretentive"
}

// inHSM reports whether a .private file only names a key.
func inHSM(private []byte) bool {
	return slices.ContainsFunc(strings.Split(string(private), "\n"), func(line string) bool {
		return strings.HasPrefix(line, "Label:") || strings.HasPrefix(line, "Engine:")
	})
}

func dnskeyText(apex zone.Name, ttl uint32, rdata []byte) string {
	text := ""
	if ttl != 0 {
		text = fmt.Sprintf("%d ", ttl)
	}
	return fmt.Sprintf("%s %sIN DNSKEY %d %d %d %s", apex.Fold(), text, binary.BigEndian.Uint16(rdata), rdata[2], rdata[3],
		base64.StdEncoding.EncodeToString(rdata[4:]))
}

// signedSerial is the highest serial of a zone that named keeps signed: that of
// the end of its journal, else that of the file in raw format; nil where there
// is neither.
func signedSerial(path string) *uint32 {
	n, ok := journalSerial(path + ".jnl")
	if !ok {
		n, ok = rawSerial(path)
	}
	if !ok {
		return nil
	}
	return &n
}

// head is the beginning of a file.
func head(path string, size int64) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // opened for reading
	b, err := io.ReadAll(io.LimitReader(f, size))
	if err != nil {
		return nil
	}
	return b
}

// journalSerial is the serial at the end of a journal of named.
func journalSerial(path string) (uint32, bool) {
	b := head(path, 64)
	if len(b) < 32 || !strings.HasPrefix(string(b), ";BIND LOG V9") {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[24:]), binary.BigEndian.Uint32(b[28:]) != 0 // where it ends
}

// rawSerial is the serial of the SOA record that is the first of a file in
// named's raw format.
func rawSerial(path string) (uint32, bool) {
	b := head(path, 1024)
	if len(b) < 12 || binary.BigEndian.Uint32(b) != 2 { // raw
		return 0, false
	}
	at := 12 // format, version, time
	if binary.BigEndian.Uint32(b[4:]) == 1 {
		at += 12 // flags, serial of the source, time of the transfer
	}
	const fixed = 4 + 2 + 2 + 2 + 4 + 4 + 2 // length, class, type, covers, TTL, records, length of the name
	if len(b) < at+fixed || binary.BigEndian.Uint16(b[at+6:]) != uint16(zone.TypeSOA) {
		return 0, false
	}
	at += fixed + int(binary.BigEndian.Uint16(b[at+fixed-2:]))
	if len(b) < at+2 {
		return 0, false
	}
	size := int(binary.BigEndian.Uint16(b[at:]))
	rdata := b[at+2:]
	if size < 22 || len(rdata) < size {
		return 0, false
	}
	return binary.BigEndian.Uint32(rdata[size-20:]), true
}
