package cli

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
	"sluice/signer"
	"sluice/signer/zone"
)

func verifyCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "verify", Usage: "verify a signed zone file; needs no daemon", ArgsUsage: "ZONE FILE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "at", Usage: "as of this `TIME`", DefaultText: "now"},
			&urfave.StringFlag{Name: "trust-anchor", Usage: "a DS or DNSKEY record in this `FILE` must stand for a key that signs the DNSKEY RRset"},
			&urfave.IntFlag{Name: "workers", Usage: "verify with `N` goroutines", DefaultText: "one a core"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "ZONE", "FILE")
			if err != nil {
				return err
			}
			opts := signer.VerifyOptions{At: time.Now(), Workers: c.Int("workers")}
			if opts.Workers < 0 {
				return usagef("--workers %d: want a number above 0", opts.Workers)
			}
			if opts.Apex, err = parseZone(args[0]); err != nil {
				return err
			}
			if c.IsSet("at") {
				if opts.At, err = parseTime(c.String("at"), time.Now()); err != nil {
					return err
				}
			}
			if path := c.String("trust-anchor"); path != "" {
				if opts.Anchors, err = readAnchors(path, opts.Apex); err != nil {
					return err
				}
			}
			return e.verifyFile(c.Context, args[1], opts)
		},
	}
}

// verifyFile verifies a signed zone file and prints what it found.
func (e *env) verifyFile(ctx context.Context, path string, opts signer.VerifyOptions) error {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(toolMemory))
	spill := pipeline.SpillDir(os.TempDir())
	opts.Spill = spill
	m := e.newMeter()
	defer m.end()
	in, err := loadFile(ctx, path, opts.Apex, spill, true, m)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // temporary files
	kept := newRuns(spill)
	defer kept.close() //nolint:errcheck // temporary files
	for in.Items.Next() {
		if err := kept.Put(in.Items.Key(), in.Items.Value()); err != nil {
			return err
		}
	}
	if err := in.Items.Err(); err != nil {
		return describeLoad(err)
	}
	items, err := kept.merged()
	if err != nil {
		return err
	}
	m.show(pipeline.Progress{Stage: "verify"})
	report, err := signer.Verify(ctx, items, opts)
	m.end()
	if err != nil {
		return err
	}
	return e.printReport(api.ReportOf(opts.Apex.String(), report))
}

// printReport prints what a verification found; faults end in exit code 1.
func (e *env) printReport(r api.Report) error {
	if e.json {
		if err := e.printJSON(r); err != nil {
			return err
		}
	} else if err := e.printReportText(r); err != nil {
		return err
	}
	if !r.OK {
		return errSilent
	}
	return nil
}

func (e *env) printReportText(r api.Report) error {
	for _, f := range r.Faults {
		if err := e.printf("%s %s: %s: %s\n", f.Owner, f.Type, e.paint(red, f.Rule), f.Detail); err != nil {
			return err
		}
	}
	if more := r.FaultCount - uint64(len(r.Faults)); more > 0 {
		if err := e.printf("and %d more\n", more); err != nil {
			return err
		}
	}
	for _, n := range r.Notices {
		if err := e.printf("notice: %s\n", n); err != nil {
			return err
		}
	}
	verdict := e.paint(green, "valid")
	if !r.OK {
		verdict = e.paint(red, "NOT valid, "+count(r.FaultCount, "fault"))
	}
	text := fmt.Sprintf("%s %s: serial %d, %s, %s (%d checked)", r.Zone, verdict, r.Serial,
		count(r.Records, "record"), count(r.Signatures, "signature"), r.Checked)
	if r.Denial != "" {
		text += ", " + r.Denial
	}
	if r.Earliest != nil {
		text += ", earliest expiry " + when(*r.Earliest)
	}
	return e.printf("%s\n", text)
}

// maxAnchorFile bounds a file of trust anchors, in bytes.
const maxAnchorFile = 1 << 20

// readAnchors reads the DS and DNSKEY records of a zone, one a line, from a
// file such as dnssec-dsfromkey or dnssec-keygen write.
func readAnchors(path string, apex zone.Name) ([]signer.Anchor, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxAnchorFile {
		return nil, fmt.Errorf("%s: larger than %d bytes: not a file of trust anchors", path, maxAnchorFile)
	}
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	var anchors []signer.Anchor
	for i, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, ";")
		fields := strings.Fields(strings.NewReplacer("(", " ", ")", " ").Replace(line))
		if len(fields) == 0 {
			continue
		}
		a, err := parseAnchor(fields, apex)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
		anchors = append(anchors, a)
	}
	if len(anchors) == 0 {
		return nil, fmt.Errorf("%s: no DS or DNSKEY record", path)
	}
	return anchors, nil
}

var errAnchor = errors.New("not a DS or DNSKEY record on one line")

// parseAnchor reads one record: owner, TTL and class where they are given,
// type, data.
func parseAnchor(fields []string, apex zone.Name) (signer.Anchor, error) {
	at := 0
	for at < len(fields) && !strings.EqualFold(fields[at], "DS") && !strings.EqualFold(fields[at], "DNSKEY") {
		at++
	}
	if at == 0 || at > 3 || len(fields) < at+5 {
		return signer.Anchor{}, errAnchor
	}
	owner, err := zone.ParseName(fields[0])
	if err != nil {
		return signer.Anchor{}, err
	}
	if !owner.Equal(apex) {
		return signer.Anchor{}, fmt.Errorf("the record belongs to %s, not to %s", owner, apex)
	}
	var n [3]uint64
	for i, bits := range []int{16, 8, 8} {
		if n[i], err = strconv.ParseUint(fields[at+1+i], 10, bits); err != nil {
			return signer.Anchor{}, errAnchor
		}
	}
	rdata := binary.BigEndian.AppendUint16(nil, uint16(n[0]))
	rdata = append(rdata, byte(n[1]), byte(n[2]))
	rest := strings.Join(fields[at+4:], "")
	var data []byte
	kind := zone.TypeDS
	if strings.EqualFold(fields[at], "DNSKEY") {
		kind = zone.TypeDNSKEY
		data, err = base64.StdEncoding.DecodeString(rest)
	} else {
		data, err = hex.DecodeString(rest)
	}
	if err != nil {
		return signer.Anchor{}, fmt.Errorf("%w: %w", errAnchor, err)
	}
	return signer.Anchor{Type: kind, RData: append(rdata, data...)}, nil
}
