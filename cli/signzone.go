package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/pipeline"
	"sluice/signer"
	"sluice/signer/zone"
)

// toolMemory is the Go memory limit of signzone and verify: their buffers are
// bounded, and with it the collector keeps the rest small, too.
const toolMemory = 256 << 20

func signzoneCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "signzone", Usage: "sign a zone file; needs no daemon", ArgsUsage: "ZONE FILE",
		Description: "A key's flags say what it signs: 257 the keys, 256 the zone; where an algorithm has\n" +
			"keys of one sort only, they sign everything.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringSliceFlag{Name: "key", Aliases: []string{"k"}, Usage: "sign with this key: BIND's K*.private `FILE`, the .key file beside it; may be given again"},
			outputFlag(),
			&urfave.StringFlag{Name: "denial", Value: string(signer.NSEC), Usage: "`TYPE` of denial: nsec, nsec3 or nsec3-opt-out"},
			&urfave.UintFlag{Name: "iterations", Usage: "NSEC3 iterations `N` (RFC 9276: 0)"},
			&urfave.StringFlag{Name: "salt", Usage: "NSEC3 salt in `HEX`, - for none (RFC 9276: none)"},
			&urfave.StringFlag{Name: "inception", Usage: "signatures are valid from this `TIME` on", DefaultText: "one day ago"},
			&urfave.StringFlag{Name: "expiration", Usage: "signatures are valid until this `TIME`", DefaultText: "in four weeks"},
			&urfave.StringFlag{Name: "serial-policy", Value: string(pipeline.SerialKeep), Usage: "`POLICY`: keep or keep-strict (the file's), counter (plus 1), unix-time or date-counter"},
			&urfave.BoolFlag{Name: "zonemd", Usage: "add a ZONEMD record (RFC 8976)"},
			&urfave.StringFlag{Name: "dnskey-ttl", Value: "1h", Usage: "TTL of the DNSKEY RRset as a `DURATION`"},
			&urfave.IntFlag{Name: "workers", Usage: "sign with `N` goroutines", DefaultText: "one a core"},
			&urfave.StringFlag{Name: "verify", Value: "all", Usage: "`WHICH` new signatures are verified: all or sample (1 in 64 above 1,000)"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "ZONE", "FILE")
			if err != nil {
				return err
			}
			job, err := newSignJob(c, args, time.Now())
			if err != nil {
				return err
			}
			return e.signzone(c.Context, job)
		},
	}
}

// signJob is one run of signzone.
type signJob struct {
	file   string
	output string
	keys   []signer.Key
	// notices are about the keys.
	notices []string
	serial  pipeline.SerialPolicy
	params  signer.Params
	now     time.Time
}

// newSignJob reads the command line of signzone and the keys that it names.
func newSignJob(c *urfave.Context, args []string, now time.Time) (*signJob, error) {
	apex, err := parseZone(args[0])
	if err != nil {
		return nil, err
	}
	j := &signJob{file: args[1], output: c.String("output"), serial: pipeline.SerialPolicy(c.String("serial-policy")), now: now}
	if j.output == "" {
		return nil, &usageError{msg: "-o is missing: where the signed zone goes", hint: "-o - is standard output"}
	}
	switch j.serial {
	case pipeline.SerialKeep, pipeline.SerialKeepStrict, pipeline.SerialCounter, pipeline.SerialUnixTime, pipeline.SerialDateCounter:
	default:
		return nil, usagef("--serial-policy %q: want keep, keep-strict, counter, unix-time or date-counter", j.serial)
	}
	j.params = pipeline.Default().SignParams(apex, 0, now)
	j.params.Jitter, j.params.CDSDigest, j.params.NoDigest = 0, nil, true
	if err := signParams(c, &j.params, now); err != nil {
		return nil, err
	}
	if j.keys, j.notices, err = readKeys(c.StringSlice("key"), apex); err != nil {
		return nil, err
	}
	if n := j.params.Iterations; n > 0 {
		j.notices = append(j.notices, fmt.Sprintf("NSEC3 with %d iterations, RFC 9276 wants 0: validators may treat the zone as insecure or bogus", n))
	}
	return j, nil
}

// signParams reads the flags that say how to sign.
func signParams(c *urfave.Context, p *signer.Params, now time.Time) error {
	p.Denial = signer.Denial(c.String("denial"))
	switch p.Denial {
	case signer.NSEC:
		if c.IsSet("iterations") || c.IsSet("salt") {
			return usagef("--iterations and --salt are for NSEC3: add --denial nsec3 or nsec3-opt-out")
		}
	case signer.NSEC3, signer.NSEC3OptOut:
	default:
		return usagef("--denial %q: want nsec, nsec3 or nsec3-opt-out", p.Denial)
	}
	n := c.Uint("iterations")
	if n > 65535 {
		return usagef("--iterations %d: at most 65535", n)
	}
	p.Iterations = uint16(n)
	var err error
	if p.Salt, err = hex.DecodeString(strings.TrimPrefix(c.String("salt"), "-")); err != nil || len(p.Salt) > 255 {
		return usagef("--salt %q: want at most 255 bytes in hex, or -", c.String("salt"))
	}
	for name, to := range map[string]*time.Time{"inception": &p.Inception, "expiration": &p.Expiration} {
		if !c.IsSet(name) {
			continue
		}
		if *to, err = parseTime(c.String(name), now.Truncate(time.Second)); err != nil {
			return err
		}
	}
	if !p.Inception.Before(p.Expiration) {
		return usagef("expiration %s is not after inception %s", when(p.Expiration), when(p.Inception))
	}
	p.Refresh = time.Time{}
	ttl, err := pipeline.ParseDuration(c.String("dnskey-ttl"))
	if err != nil || ttl > (1<<31-1)*time.Second {
		return usagef("--dnskey-ttl %q: want for example 1h, or seconds", c.String("dnskey-ttl"))
	}
	p.DNSKEYTTL = uint32(ttl / time.Second)
	if p.Workers = c.Int("workers"); p.Workers < 0 {
		return usagef("--workers %d: want a number above 0", p.Workers)
	}
	p.ZONEMD = c.Bool("zonemd")
	switch c.String("verify") {
	case "all", "sample":
		p.VerifyAll = c.String("verify") == "all"
	default:
		return usagef("--verify %q: want all or sample", c.String("verify"))
	}
	return nil
}

// signSummary is what signzone says at the end.
type signSummary struct {
	Zone       string    `json:"zone"`
	Output     string    `json:"output"`
	Serial     uint32    `json:"serial"`
	Records    uint64    `json:"records"`
	Signatures uint64    `json:"signatures"`
	Verified   uint64    `json:"verified"`
	Denial     string    `json:"denial"`
	Inception  time.Time `json:"inception"`
	Expiration time.Time `json:"expiration"`
	DurationMS int64     `json:"duration_ms"`
	// Stripped counts by type the signer's own records that the input brought.
	Stripped map[string]uint64 `json:"stripped,omitempty"`
	Notices  []string          `json:"notices,omitempty"`
}

// signzone signs a file.
func (e *env) signzone(ctx context.Context, j *signJob) error {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(toolMemory))
	began := time.Now()
	target, err := findOutput(j.output)
	if err != nil {
		return err
	}
	spill := pipeline.SpillDir(target.folder())
	m := e.newMeter()
	defer m.end()
	in, err := loadFile(ctx, j.file, j.params.Apex, spill, false, m)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // temporary files
	if err := j.pickSerial(in.Serial); err != nil {
		return err
	}
	out := newRuns(spill)
	defer out.close() //nolint:errcheck // temporary files
	j.params.Progress = func(n uint64) { m.show(pipeline.Progress{Stage: "sign", Done: int64(n)}) }
	res, err := signer.Sign(ctx, signer.Input{
		Contents: &tee{Iterator: in.Items, to: out}, Spill: spill,
	}, j.keys, j.params, out)
	if err != nil {
		return describeLoad(err)
	}
	m.show(pipeline.Progress{Stage: "write"})
	err = e.writeTo(j.output, func(w io.Writer) error {
		items, err := out.merged()
		if err != nil {
			return err
		}
		return writeZone(ctx, items, w)
	})
	m.end()
	if err != nil {
		return err
	}
	return e.printSigned(j, in, res, time.Since(began))
}

// pickSerial sets the serial of the signed zone.
func (j *signJob) pickSerial(source zone.Serial) error {
	j.params.Serial = source
	if j.serial == pipeline.SerialKeep || j.serial == pipeline.SerialKeepStrict {
		return nil
	}
	var err error
	j.params.Serial, err = pipeline.NextSerial(j.serial, source, &source, nil, j.now)
	return err
}

// printSigned says what was signed, on standard error where the zone itself
// went to standard output.
func (e *env) printSigned(j *signJob, in *zone.Loaded, res *signer.Result, took time.Duration) error {
	s := signSummary{
		Zone: j.params.Apex.String(), Output: j.output, Serial: uint32(j.params.Serial),
		Records: res.Records, Signatures: res.Signatures, Verified: res.Verified, Denial: string(res.Denial),
		Inception: j.params.Inception.UTC(), Expiration: j.params.Expiration.UTC(),
		DurationMS: took.Milliseconds(), Stripped: in.Stripped, Notices: append(j.notices, in.Notices...),
	}
	to := *e
	if j.output == "-" {
		to.stdout = e.stderr
	}
	if e.json {
		return to.printJSON(s)
	}
	if len(s.Stripped) > 0 {
		e.note("left out of the input: %s", strippedText(s.Stripped))
	}
	for _, n := range s.Notices {
		e.note("notice: %s", n)
	}
	return to.printf("%s signed: serial %d, %s, %s, %s, valid until %s, %s\n", s.Zone, s.Serial,
		count(s.Records, "record"), count(s.Signatures, "signature"), s.Denial, when(s.Expiration), tookText(took))
}

// loadFile loads a zone file; what it includes must stand in its folder or
// below.
func loadFile(ctx context.Context, path string, apex zone.Name, spill zone.Spill, keepSigned bool, m *meter) (*zone.Loaded, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	files, err := pipeline.OpenZoneFile(path)
	if err != nil {
		return nil, err
	}
	defer files.Close() //nolint:errcheck // opened for reading
	in, err := zone.Load(ctx, zone.LoadOptions{
		FS: files, File: files.Name, Origin: apex, Spill: spill, KeepSigned: keepSigned,
		NoDigest: true, // it names instances in the journal, and there is none
		Progress: func(read, total int64) {
			m.show(pipeline.Progress{Stage: "load", Done: read, Total: total})
		},
	})
	return in, describeLoad(err)
}

// describeLoad lists the errors of a zone file, one a line.
func describeLoad(err error) error {
	var le *zone.LoadError
	if !errors.As(err, &le) || len(le.Errors) == 0 {
		return err
	}
	if le.Total == 1 {
		return le.Errors[0]
	}
	var b strings.Builder
	b.WriteString(strconv.Itoa(le.Total) + " errors in the zone file")
	for _, fe := range le.Errors {
		b.WriteString("\n  " + fe.Error())
	}
	if more := le.Total - len(le.Errors); more > 0 {
		fmt.Fprintf(&b, "\n  and %d more", more)
	}
	return errors.New(b.String())
}
