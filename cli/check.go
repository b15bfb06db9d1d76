package cli

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/miekg/dns"
	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/cli/chain"
	"sluice/pipeline"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

func checkCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "check", Usage: "follow the chain of trust to a name as a validator does; needs no daemon", ArgsUsage: "NAME [TYPE]...",
		OnUsageError: onUsageError,
		Flags: append(chainFlags(),
			&urfave.BoolFlag{Name: "secure", Usage: "fail also where it is proven that the zone is not signed"},
			&urfave.BoolFlag{Name: "detailed", Usage: "show each server, key and answer"},
		),
		Action: func(c *urfave.Context) error {
			args := c.Args().Slice()
			if len(args) == 0 {
				_, err := arguments(c, "NAME", "[TYPE]...")
				return err
			}
			name, err := parseZone(args[0])
			if err != nil {
				return err
			}
			types, err := parseTypes(args[1:])
			if err != nil {
				return err
			}
			cfg, err := chainConfig(c, time.Now())
			if err != nil {
				return err
			}
			r, err := chain.Check(c.Context, cfg, name, types)
			if err != nil {
				return noAnchor(err)
			}
			if err := c.Context.Err(); err != nil {
				return err
			}
			if e.json {
				err = e.printJSON(r)
			} else {
				err = e.printChain(r, c.Bool("detailed"))
			}
			return errors.Join(err, chainError(r, c.Bool("secure")))
		},
	}
}

// chainFlags say from where a chain of trust is followed.
func chainFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringSliceFlag{Name: "anchor", Usage: "trust this: a `DS` or DNSKEY record, a file of them, or IANA's root-anchors.xml; may be repeated", DefaultText: "the root's, of " + observe.RootAnchorsDate},
		&urfave.StringSliceFlag{Name: "root", Usage: "begin at this server, `IP[:PORT]`, of the root or of the anchor's zone; all servers are asked at its port; may be repeated", DefaultText: "the root's servers"},
		&urfave.StringFlag{Name: "resolver", Usage: "ask this resolver, `IP[:PORT]`, instead of the name servers"},
		&urfave.StringFlag{Name: "at", Usage: "as of this `TIME`", DefaultText: "now"},
	}
}

// chainConfig reads the flags of chainFlags.
func chainConfig(c *urfave.Context, now time.Time) (cfg chain.Config, err error) {
	cfg.Now = now
	if c.IsSet("at") {
		if cfg.Now, err = parseTime(c.String("at"), now); err != nil {
			return cfg, err
		}
	}
	for _, text := range c.StringSlice("anchor") {
		found, err := parseAnchors(text, cfg.Now)
		if err != nil {
			return cfg, err
		}
		cfg.Anchors = append(cfg.Anchors, found...)
	}
	for _, text := range c.StringSlice("root") {
		at, err := parseServer("--root", text)
		if err != nil {
			return cfg, err
		}
		if len(cfg.Roots) > 0 && cfg.Roots[0].Port() != at.Port() {
			return cfg, usagef("--root %s: all servers must have the same port", text)
		}
		cfg.Roots = append(cfg.Roots, at)
	}
	if text := c.String("resolver"); text != "" {
		if len(cfg.Roots) > 0 {
			return cfg, usagef("--resolver and --root: want one of them")
		}
		if cfg.Resolver, err = parseServer("--resolver", text); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

func parseServer(flag, text string) (netip.AddrPort, error) {
	at, err := parseResolver(text)
	if err != nil {
		return at, usagef("%s %q: want IP or IP:PORT", flag, text)
	}
	return at, nil
}

// parseTypes reads record types.
func parseTypes(words []string) (out []zone.Type, err error) {
	const most = 16
	if len(words) > most {
		return nil, usagef("%d types: want %d at most", len(words), most)
	}
	for _, word := range words {
		t, ok := zone.ParseType(word)
		if !ok || t == 0 || t >= 128 && t <= 255 || t == zone.Type(dns.TypeOPT) {
			return nil, usagef("type %q: want the type of a record, such as MX or TYPE65280", word)
		}
		if t == zone.TypeRRSIG {
			return nil, usagef("type %q: signatures are not signed themselves: want the type that they are over", word)
		}
		out = append(out, t)
	}
	return out, nil
}

// parseAnchors reads a trust anchor, or a file of them: of records, or as IANA
// publishes the root's, of which those are taken that are valid at now.
func parseAnchors(text string, now time.Time) ([]observe.Anchor, error) {
	if strings.ContainsAny(text, " \t") {
		a, err := observe.ParseAnchor(text)
		if err == nil {
			return []observe.Anchor{a}, nil
		}
		if _, missing := os.Stat(text); errors.Is(missing, fs.ErrNotExist) {
			return nil, usagef("%v", err)
		}
	}
	info, err := os.Stat(text)
	if err != nil {
		return nil, withHint(err, "--anchor takes a file, or a record in quotes such as 'example. IN DS 12345 13 2 49FD...'")
	}
	if info.Size() > maxAnchorFile {
		return nil, fmt.Errorf("%s: larger than %d bytes: not a file of trust anchors", text, maxAnchorFile)
	}
	contents, err := os.ReadFile(filepath.Clean(text))
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(bytes.TrimSpace(contents), []byte("<")) {
		out, err := xmlAnchors(contents, now)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		return out, nil
	}
	var out []observe.Anchor
	records := dns.NewZoneParser(bytes.NewReader(contents), ".", text)
	records.SetDefaultTTL(0)
	for rr, ok := records.Next(); ok; rr, ok = records.Next() {
		a, err := observe.ParseAnchor(rr.String())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		out = append(out, a)
	}
	if err := records.Err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no DS or DNSKEY record", text)
	}
	return out, nil
}

// xmlAnchors reads the form of root-anchors.xml (RFC 9718, 2).
func xmlAnchors(contents []byte, now time.Time) (out []observe.Anchor, err error) {
	var file struct {
		XMLName xml.Name `xml:"TrustAnchor"`
		Zone    string
		Keys    []struct {
			From       time.Time  `xml:"validFrom,attr"`
			Until      *time.Time `xml:"validUntil,attr"`
			KeyTag     uint16
			Algorithm  uint8
			DigestType uint8
			Digest     string
		} `xml:"KeyDigest"`
	}
	if err := xml.Unmarshal(contents, &file); err != nil {
		return nil, err
	}
	for _, k := range file.Keys {
		if now.Before(k.From) || k.Until != nil && !now.Before(*k.Until) {
			continue
		}
		a, err := observe.ParseAnchor(fmt.Sprintf("%s IN DS %d %d %d %s", strings.TrimSpace(file.Zone), k.KeyTag, k.Algorithm, k.DigestType, strings.TrimSpace(k.Digest)))
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no KeyDigest that is valid at %s", now.UTC().Format(time.RFC3339))
	}
	return out, nil
}

// noAnchor says what to do where nothing is to be trusted.
func noAnchor(err error) error {
	if errors.Is(err, chain.ErrNoAnchor) {
		return withHint(err, "give one with --anchor, or leave --anchor away for the root's")
	}
	return err
}

// chainError is what a report means for the exit code: 0 where nothing is wrong.
func chainError(r *chain.Report, secure bool) error {
	switch {
	case r.Verdict == chain.Unreachable:
		return errors.Join(errSilent, api.ErrUnreachable)
	case !r.Healthy, secure && r.Verdict != chain.Secure:
		return errSilent
	case r.Absent:
		return errors.Join(errSilent, pipeline.ErrNotFound)
	}
	return nil
}
