package migrate

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// isSQLite reports whether a file is an SQLite database.
func isSQLite(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	head := make([]byte, 16)
	if _, err := io.ReadFull(f, head); err != nil {
		return false, nil // it is too short for one
	}
	return bytes.Equal(head, []byte("SQLite format 3\x00")), nil
}

// copyDatabase opens a copy of an SQLite database, so that the file and its locks
// stay as they are while its program runs. What stands in its write-ahead log is
// in the copy. done removes the copy.
func copyDatabase(path string) (db *sql.DB, done func() error, err error) {
	dir, err := os.MkdirTemp("", "sluice-migrate-") // 0700
	if err != nil {
		return nil, nil, err
	}
	gone := func() error { return os.RemoveAll(dir) }
	to, err := copySQLite(path, dir)
	if err != nil {
		return nil, nil, errors.Join(err, gone())
	}
	if db, err = sql.Open("sqlite3", "file:"+(&url.URL{Path: to}).EscapedPath()); err != nil {
		return nil, nil, errors.Join(err, gone())
	}
	db.SetMaxOpenConns(1)
	return db, func() error { return errors.Join(db.Close(), gone()) }, nil
}

// readPDNSDatabase reads a database of the backend gsqlite3.
func readPDNSDatabase(ctx context.Context, path string) (data pdnsData, err error) {
	db, done, err := copyDatabase(path)
	if err != nil {
		return data, err
	}
	defer func() { err = errors.Join(err, done()) }()
	d := pdnsDB{db: db, byID: map[int64]int{}}
	for _, step := range []func(context.Context) error{d.zones, d.metadata, d.keys, d.tsig, d.soas, d.live} {
		if err := step(ctx); err != nil {
			return data, fmt.Errorf("%s: %w", path, err)
		}
	}
	return d.data, nil
}

// pdnsDB is the work on one database.
type pdnsDB struct {
	db   *sql.DB
	data pdnsData
	byID map[int64]int
}

// rows runs a query, and has each row read.
func (d *pdnsDB) rows(ctx context.Context, query string, each func(scan func(...any) error) error) error {
	rows, err := d.db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (d *pdnsDB) zones(ctx context.Context) error {
	return d.rows(ctx, "SELECT id, name, COALESCE(master, ''), type FROM domains ORDER BY name", func(scan func(...any) error) error {
		var id int64
		var masters string
		z := pdnsZone{meta: map[string][]string{}, live: map[string]int{}}
		if err := scan(&id, &z.name, &masters, &z.kind); err != nil {
			return err
		}
		z.kind = strings.ToUpper(z.kind)
		z.masters = strings.FieldsFunc(masters, func(r rune) bool { return r == ',' || r == ' ' || r == ';' })
		d.byID[id] = len(d.data.zones)
		d.data.zones = append(d.data.zones, z)
		return nil
	})
}

// zone is the zone of an ID; nil where there is none.
func (d *pdnsDB) zone(id int64) *pdnsZone {
	i, ok := d.byID[id]
	if !ok {
		return nil
	}
	return &d.data.zones[i]
}

func (d *pdnsDB) metadata(ctx context.Context) error {
	return d.rows(ctx, "SELECT domain_id, kind, COALESCE(content, '') FROM domainmetadata ORDER BY id", func(scan func(...any) error) error {
		var id int64
		var kind, content string
		if err := scan(&id, &kind, &content); err != nil {
			return err
		}
		if z := d.zone(id); z != nil {
			kind = strings.ToUpper(kind)
			z.meta[kind] = append(z.meta[kind], content)
		}
		return nil
	})
}

func (d *pdnsDB) keys(ctx context.Context) error {
	// Before 4.2 all keys were published.
	published := "1"
	if err := d.rows(ctx, "SELECT 1 FROM pragma_table_info('cryptokeys') WHERE name = 'published'", func(func(...any) error) error {
		published = "COALESCE(published, 1)"
		return nil
	}); err != nil {
		return err
	}
	query := "SELECT id, domain_id, flags, COALESCE(active, 0), " + published + ", content FROM cryptokeys ORDER BY id"
	return d.rows(ctx, query, func(scan func(...any) error) error {
		var k pdnsKey
		var domain int64
		if err := scan(&k.id, &domain, &k.flags, &k.active, &k.published, &k.content); err != nil {
			return err
		}
		if z := d.zone(domain); z != nil {
			z.keys = append(z.keys, k)
		}
		return nil
	})
}

func (d *pdnsDB) tsig(ctx context.Context) error {
	return d.rows(ctx, "SELECT name, algorithm, secret FROM tsigkeys ORDER BY name", func(scan func(...any) error) error {
		var name, algorithm, secret string
		if err := scan(&name, &algorithm, &secret); err != nil {
			return err
		}
		key, err := pdnsTSIG(name, algorithm, secret)
		if err == nil {
			d.data.tsig = append(d.data.tsig, key)
		}
		return err
	})
}

// pdnsTSIG is a TSIG key; the final dot of an algorithm is left out.
func pdnsTSIG(name, algorithm, secret string) (TSIGKey, error) {
	raw, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		return TSIGKey{}, fmt.Errorf("the secret of TSIG key %s is not base64", name)
	}
	return TSIGKey{strings.TrimSuffix(name, "."), strings.ToLower(strings.TrimSuffix(algorithm, ".")), raw}, nil
}

// soas reads serial and minimum of each zone's SOA.
func (d *pdnsDB) soas(ctx context.Context) error {
	query := "SELECT domain_id, COALESCE(ttl, 0), COALESCE(content, '') FROM records WHERE type = 'SOA' AND COALESCE(disabled, 0) = 0"
	return d.rows(ctx, query, func(scan func(...any) error) error {
		var id, ttl int64
		var content string
		if err := scan(&id, &ttl, &content); err != nil {
			return err
		}
		if z := d.zone(id); z != nil {
			z.soa(content)
		}
		return nil
	})
}

// soa reads the content of an SOA record.
func (z *pdnsZone) soa(content string) {
	words := strings.Fields(content)
	if len(words) != 7 {
		return
	}
	if n, err := strconv.ParseUint(words[2], 10, 32); err == nil {
		serial := uint32(n)
		z.serial = &serial
	}
	if n, err := strconv.ParseUint(words[6], 10, 31); err == nil {
		z.minimum = uint32(n)
	}
}

// live counts the records whose answers are made when they are asked for.
func (d *pdnsDB) live(ctx context.Context) error {
	query := "SELECT domain_id, type, COUNT(*) FROM records WHERE type IN ('ALIAS', 'LUA') AND COALESCE(disabled, 0) = 0 GROUP BY domain_id, type"
	return d.rows(ctx, query, func(scan func(...any) error) error {
		var id int64
		var kind string
		var n int
		if err := scan(&id, &kind, &n); err != nil {
			return err
		}
		if z := d.zone(id); z != nil {
			z.live[kind] = n
		}
		return nil
	})
}
