package migrate

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	_ "github.com/ncruces/go-sqlite3/driver" // the driver "sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed"  // SQLite itself
)

// How far a record has got around, and what became of a DS, as the enforcer's
// database numbers it (enforcer/src/db/dbw.h of OpenDNSSEC 2.1).
const (
	odsHidden = iota
	odsRumoured
	odsOmnipresent
	odsUnretentive
	odsNA
)

const (
	odsDSUnsubmitted = iota
	odsDSSubmit
	odsDSSubmitted
	odsDSSeen
	odsDSRetract
	odsDSRetracted
)

// Types of records in keyState.
const (
	odsRecordDS = iota
	odsRecordRRSIG
	odsRecordDNSKEY
	odsRecordKeyRRSIG
	odsRecords // how many
)

// odsDB is what the enforcer's database says.
type odsDB struct {
	policies map[int64]*odsPolicy
	zones    []odsZone // by name
}

type odsZone struct {
	id, policy           int64
	name, signconf       string
	inputType, input     string
	outputType, output   string
	keys                 []*odsKey
	signconfNeedsWriting bool
}

// odsKey is a key of a zone. Times are epoch seconds.
type odsKey struct {
	id, zone               int64
	algorithm, role        int64
	inception              int64 // it came to the zone
	introducing            bool
	standby                bool
	dsAtParent, tag        int64
	locator, repository    string
	made                   int64 // in the token
	records                [odsRecords]odsRecord
	predecessor, successor int64 // key tags
}

type odsRecord struct {
	state, since, ttl int64
	there             bool
}

// readODSDB reads the enforcer's database, which the enforcer may be using; the
// file is not touched.
func readODSDB(ctx context.Context, path string) (*odsDB, error) {
	d, err := openODSDB(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("read the enforcer's database %s: %w", path, err)
	}
	return d, nil
}

func openODSDB(ctx context.Context, path string) (*odsDB, error) {
	plain, err := plainSQLite(path)
	if err != nil {
		return nil, err
	}
	if plain {
		d, err := queryODSDB(ctx, path, "ro")
		if err == nil || errors.Is(err, errODSContents) || ctx.Err() != nil {
			return d, err
		}
	}
	// A journal has to be worked off first: that is done in a copy.
	dir, err := os.MkdirTemp("", "sluice-migrate-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a copy
	copied, err := copySQLite(path, dir)
	if err != nil {
		return nil, err
	}
	return queryODSDB(ctx, copied, "rw")
}

// errODSContents reports a database that can be read and is not what it should be.
var errODSContents = errors.New("it is not as OpenDNSSEC 2.1 has it")

// plainSQLite reports whether a database can be read in place: it has no journal
// that has to be worked off, nor a write-ahead log.
func plainSQLite(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	var head [100]byte
	if _, err := io.ReadFull(f, head[:]); err != nil || string(head[:16]) != "SQLite format 3\x00" {
		return false, fmt.Errorf("%w: no SQLite database", errODSContents)
	}
	info, err := os.Stat(path + "-journal")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return head[18] != 2 && (err != nil || info.Size() == 0), nil
}

// copySQLite copies a database with its journals, so that none of them changed
// meanwhile.
func copySQLite(path, dir string) (string, error) {
	const tries = 20
	to := filepath.Join(dir, "kasp.db")
	stamp := func() string {
		var b strings.Builder
		for _, suffix := range []string{"", "-journal", "-wal"} {
			if info, err := os.Stat(path + suffix); err == nil {
				fmt.Fprintf(&b, "%s %d %d;", suffix, info.Size(), info.ModTime().UnixNano())
			}
		}
		if text, err := headOf(path); err == nil {
			fmt.Fprintf(&b, "%d", binary.BigEndian.Uint32(text[24:28])) // counts changes
		}
		return b.String()
	}
	for range tries {
		before := stamp()
		for _, suffix := range []string{"", "-journal", "-wal"} {
			text, err := os.ReadFile(path + suffix)
			if errors.Is(err, fs.ErrNotExist) && suffix != "" {
				if err := remove(to + suffix); err != nil {
					return "", err
				}
				continue
			}
			if err != nil {
				return "", err
			}
			if err := os.WriteFile(to+suffix, text, 0o600); err != nil {
				return "", err
			}
		}
		if stamp() == before {
			return to, nil
		}
	}
	return "", errors.New("it changes all the time: stop the program that writes to it (OpenDNSSEC: ods-enforcer stop), and try again")
}

func headOf(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	head := make([]byte, 100)
	_, err = io.ReadFull(f, head)
	return head, err
}

// queryODSDB reads all in one transaction, so that it fits together.
func queryODSDB(ctx context.Context, path, mode string) (d *odsDB, err error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	name := url.URL{Scheme: "file", Path: full, RawQuery: "mode=" + mode + "&_pragma=busy_timeout(10000)"}
	db, err := sql.Open("sqlite3", name.String())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	q := odsQuery{ctx: ctx, tx: tx, d: &odsDB{policies: map[int64]*odsPolicy{}}, zones: map[int64]int{}, keys: map[int64]*odsKey{}}
	for _, read := range []func() error{q.tables, q.readPolicies, q.readPolicyKeys, q.readZones, q.readKeys, q.readStates, q.readDependencies} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return q.d, nil
}

type odsQuery struct {
	ctx   context.Context //nolint:containedctx // it lives as long as one read
	tx    *sql.Tx
	d     *odsDB
	zones map[int64]int // where they stand, by id
	keys  map[int64]*odsKey
}

// each runs a query, and fn for each row.
func (q *odsQuery) each(query string, fn func(scan func(...any) error) error) error {
	rows, err := q.tx.QueryContext(q.ctx, query)
	if err != nil {
		if strings.Contains(err.Error(), "no such") {
			return fmt.Errorf("%w: %w", errODSContents, err)
		}
		return err
	}
	defer rows.Close() //nolint:errcheck // Err says more
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// tables tells a database of another version by its tables.
func (q *odsQuery) tables() error {
	has := map[string]bool{}
	err := q.each("SELECT name FROM sqlite_master WHERE type = 'table'", func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		has[name] = true
		return err
	})
	switch {
	case err != nil:
		return err
	case has["dnsseckeys"]:
		return fmt.Errorf("%w: it is of OpenDNSSEC 1.4; upgrade to 2.1 first (its README has the way), then plan again", errODSContents)
	case !has["keyData"] || !has["keyState"]:
		return fmt.Errorf("%w: it has no tables keyData and keyState", errODSContents)
	}
	return nil
}

func (q *odsQuery) readPolicies() error {
	return q.each(`SELECT id, name, description, passthrough, signaturesResign, signaturesRefresh, signaturesJitter,
		signaturesInceptionOffset, signaturesValidityDefault, signaturesValidityDenial, COALESCE(signaturesValidityKeyset, 0),
		signaturesMaxZoneTtl, denialType, denialOptout, denialTtl, denialResalt, denialIterations, denialSaltLength, denialSalt,
		keysTtl, keysRetireSafety, keysPublishSafety, keysShared, keysPurgeAfter, zonePropagationDelay, zoneSoaTtl, zoneSoaMinimum,
		zoneSoaSerial, parentRegistrationDelay, parentPropagationDelay, parentDsTtl FROM policy`,
		func(scan func(...any) error) error {
			var id, denial int64
			p := &odsPolicy{}
			if err := scan(&id, &p.name, &p.description, &p.passthrough, &p.resign, &p.refresh, &p.jitter,
				&p.inception, &p.validity, &p.denial, &p.keyset,
				&p.maxTTL, &denial, &p.optOut, &p.nsec3TTL, &p.resalt, &p.iterations, &p.saltLength, &p.salt,
				&p.keyTTL, &p.retire, &p.publish, &p.shared, &p.purge, &p.propagation, &p.soaTTL, &p.soaMinimum,
				&p.serial, &p.registration, &p.above, &p.dsTTL); err != nil {
				return err
			}
			if denial != 0 && denial != 1 || p.serial < 0 || int(p.serial) >= len(odsSerials()) {
				return fmt.Errorf("%w: policy %q has denial %d and serial %d", errODSContents, p.name, denial, p.serial)
			}
			p.nsec3 = denial == 1
			q.d.policies[id] = p
			return nil
		})
}

func (q *odsQuery) readPolicyKeys() error {
	err := q.each("SELECT policyId, role, algorithm, bits, lifetime, repository, standby, manualRollover, rfc5011, minimize FROM policyKey",
		func(scan func(...any) error) error {
			var policy int64
			var k odsPolicyKey
			if err := scan(&policy, &k.role, &k.algorithm, &k.bits, &k.lifetime, &k.repository, &k.standby, &k.manual, &k.rfc5011, &k.minimize); err != nil {
				return err
			}
			p := q.d.policies[policy]
			if p == nil {
				return nil // of a policy that is gone
			}
			if _, known := odsRollTypes()[k.role][k.minimize]; !known {
				return fmt.Errorf("%w: a key of policy %q has role %d and minimize %d", errODSContents, p.name, k.role, k.minimize)
			}
			p.keys = append(p.keys, k)
			return nil
		})
	for _, p := range q.d.policies {
		p.sort()
	}
	return err
}

func (q *odsQuery) readZones() error {
	return q.each(`SELECT id, policyId, name, signconfPath, inputAdapterType, inputAdapterUri, outputAdapterType, outputAdapterUri,
		signconfNeedsWriting FROM zone ORDER BY name`,
		func(scan func(...any) error) error {
			var z odsZone
			if err := scan(&z.id, &z.policy, &z.name, &z.signconf, &z.inputType, &z.input, &z.outputType, &z.output, &z.signconfNeedsWriting); err != nil {
				return err
			}
			if q.d.policies[z.policy] == nil {
				return fmt.Errorf("%w: zone %s has policy %d, which is not there", errODSContents, z.name, z.policy)
			}
			q.zones[z.id] = len(q.d.zones)
			q.d.zones = append(q.d.zones, z)
			return nil
		})
}

func (q *odsQuery) readKeys() error {
	return q.each(`SELECT k.id, k.zoneId, k.algorithm, k.inception, k.role, k.introducing, k.standby, k.dsAtParent, k.keytag,
		h.locator, h.repository, h.inception FROM keyData k JOIN hsmKey h ON h.id = k.hsmKeyId ORDER BY k.id`,
		func(scan func(...any) error) error {
			k := &odsKey{}
			if err := scan(&k.id, &k.zone, &k.algorithm, &k.inception, &k.role, &k.introducing, &k.standby, &k.dsAtParent, &k.tag,
				&k.locator, &k.repository, &k.made); err != nil {
				return err
			}
			i, ok := q.zones[k.zone]
			if !ok {
				return nil // of a zone that is gone
			}
			if odsRole(k.role) == "" || k.dsAtParent < odsDSUnsubmitted || k.dsAtParent > odsDSRetracted ||
				k.tag < 0 || k.tag > 65535 || k.algorithm < 1 || k.algorithm > 255 {
				return fmt.Errorf("%w: key %s of zone %s has role %d, algorithm %d, tag %d, dsAtParent %d",
					errODSContents, k.locator, q.d.zones[i].name, k.role, k.algorithm, k.tag, k.dsAtParent)
			}
			q.d.zones[i].keys = append(q.d.zones[i].keys, k)
			q.keys[k.id] = k
			return nil
		})
}

func (q *odsQuery) readStates() error {
	return q.each("SELECT keyDataId, type, state, lastChange, ttl FROM keyState", func(scan func(...any) error) error {
		var key, kind int64
		r := odsRecord{there: true}
		if err := scan(&key, &kind, &r.state, &r.since, &r.ttl); err != nil {
			return err
		}
		k := q.keys[key]
		if k == nil {
			return nil
		}
		if kind < 0 || kind >= odsRecords || r.state < odsHidden || r.state > odsNA {
			return fmt.Errorf("%w: key %s has a record of type %d in state %d", errODSContents, k.locator, kind, r.state)
		}
		k.records[kind] = r
		return nil
	})
}

// readDependencies reads which key goes for which.
func (q *odsQuery) readDependencies() error {
	return q.each("SELECT fromKeyDataId, toKeyDataId FROM keyDependency", func(scan func(...any) error) error {
		var from, to int64
		if err := scan(&from, &to); err != nil {
			return err
		}
		if old, next := q.keys[from], q.keys[to]; old != nil && next != nil {
			old.successor, next.predecessor = next.tag, old.tag
		}
		return nil
	})
}
