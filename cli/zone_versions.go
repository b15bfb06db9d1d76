package cli

import (
	"io"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func zoneDump(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "dump", Usage: "write any version that the journal holds as a zone file", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "loaded", Aliases: []string{"unsigned"}, Usage: "the loaded instance, as it came in"},
			&urfave.BoolFlag{Name: "signed", Usage: "the published instance (the default)"},
			&urfave.StringFlag{Name: "serial", Usage: "the one with this serial `N`"},
			&urfave.StringFlag{Name: "at", Usage: "the one that was current at this `TIME`"},
			outputFlag(),
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			q := pipeline.DumpQuery{Loaded: c.Bool("loaded")}
			switch {
			case q.Loaded && c.Bool("signed"):
				return usagef("--loaded and --signed: want one of them")
			case c.IsSet("serial") && c.IsSet("at"):
				return usagef("--serial and --at: want one of them")
			}
			if text := c.String("serial"); text != "" {
				n, err := strconv.ParseUint(text, 10, 32)
				if err != nil {
					return usagef("--serial %q: want a number, 0 to 4294967295", text)
				}
				serial := uint32(n)
				q.Serial = &serial
			}
			var err error
			if q.At, err = timeFlag(c, "at"); err != nil {
				return err
			}
			return e.writeTo(c.String("output"), func(w io.Writer) error {
				if !e.json {
					return client.Dump(c.Context, args[0], q, w)
				}
				lines := &recordLines{put: jsonLines[dumpRecord](w)}
				if err := client.Dump(c.Context, args[0], q, lines); err != nil {
					return err
				}
				return lines.close()
			})
		}),
	}
}

func zoneDiff(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "diff", Usage: "the records removed and added between two versions", ArgsUsage: "ZONE FROM TO",
		Description:  "FROM and TO are serials, instances (l12, s14), seq:N (what was published as of that event) or times.",
		OnUsageError: onUsageError,
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			var versions [2]string
			for i, text := range args[1:] {
				v, err := versionWord(text)
				if err != nil {
					return err
				}
				versions[i] = v
			}
			return client.Diff(c.Context, args[0], versions[0], versions[1], func(l pipeline.DiffLine) error {
				switch {
				case e.json:
					return e.printLine(l)
				case l.Removed:
					return e.printf("%s\n", e.paint(red, "- "+l.Record))
				}
				return e.printf("%s\n", e.paint(green, "+ "+l.Record))
			})
		}, "FROM", "TO"),
	}
}

// versionWord checks what names a version: a serial, an instance, seq:N, or a
// time, which is returned in RFC 3339.
func versionWord(text string) (string, error) {
	if digits, ok := strings.CutPrefix(text, "seq:"); ok {
		if n, err := strconv.ParseUint(digits, 10, 63); err != nil || n == 0 {
			return "", usagef("version %q: want seq:N, N from 1", text)
		}
		return text, nil
	}
	if _, err := strconv.ParseUint(text, 10, 32); err == nil {
		return text, nil
	}
	if len(text) > 1 && (text[0] == 'l' || text[0] == 's') {
		if _, err := strconv.ParseUint(text[1:], 10, 63); err == nil {
			return text, nil
		}
	}
	t, err := parseTime(text, time.Now())
	if err != nil || strings.TrimLeft(text, "0123456789") == "" && len(text) != len("20060102150405") {
		return "", usagef("version %q: want a serial, an instance such as l12 or s14, seq:N or a time", text)
	}
	return t.Format(time.RFC3339Nano), nil
}
