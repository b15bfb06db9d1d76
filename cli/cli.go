package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/journal"
	"sluice/pipeline"
)

// env is what a command works with: its streams, what the global flags say,
// and the way to the daemon.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string

	// From the global flags, set before a command's action runs.
	apiAddress string
	apiRoots   string
	tokenFile  string
	json       bool
	color      bool // stdout is a terminal and colour is wanted
	unicode    bool // such a terminal, which shows UTF-8
	log        *slog.Logger
}

// Main runs the command line of this process and returns its exit code: 0
// done, 1 failed, 2 wrong usage, 3 no such object, 4 not possible now, 5
// daemon not reachable, 10 there is something to do, which only plan
// --detailed-exitcode says.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	e := &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
	return e.run(ctx, os.Args)
}

// run runs one command line and returns the exit code.
func (e *env) run(ctx context.Context, argv []string) int {
	app := newApp(e)
	ordered, err := orderFlags(app, argv[1:])
	if err == nil {
		err = app.RunContext(ctx, append([]string{app.Name}, ordered...))
	}
	if err == nil {
		return 0
	}
	switch {
	case errors.Is(err, errSilent), errors.Is(err, errChanges):
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		e.note("sluice: interrupted")
	default:
		e.printError(err)
	}
	return exitCode(err)
}

func newApp(e *env) *urfave.App {
	app := &urfave.App{
		Name:            "sluice",
		Usage:           "a DNSSEC signer between a zone's primary and its secondaries",
		Reader:          e.stdin,
		Writer:          e.stdout,
		ErrWriter:       e.stderr,
		HideHelpCommand: true,
		HideVersion:     true,
		// A source lists servers with commas, and a file may have one in its name.
		DisableSliceFlagSeparator: true,
		Flags: []urfave.Flag{
			&urfave.StringFlag{
				Name: "api", EnvVars: []string{"SLUICE_API"}, DefaultText: defaultSockets,
				Usage: "where the daemon listens: `unix:PATH`, https://HOST:PORT, or that and #PIN",
			},
			&urfave.StringFlag{Name: "token-file", EnvVars: []string{"SLUICE_TOKEN_FILE"}, Usage: "over https, show the token in `FILE`, see sluice token add"},
			&urfave.StringFlag{Name: "api-roots", EnvVars: []string{"SLUICE_API_ROOTS"}, Usage: "over https, trust the certificates (PEM) in `FILE`", DefaultText: "those of the system"},
			&urfave.BoolFlag{Name: "json", Usage: "print JSON: one document, or one object a line for streams"},
			&urfave.BoolFlag{Name: "no-color", Usage: "no colour in the output; so does a set NO_COLOR"},
			&urfave.StringFlag{Name: "log-level", Value: "warn", Usage: "what to log to standard error: debug, info, warn, error; serve starts at info"},
		},
		Before:         e.setGlobals,
		Action:         commandMissing,
		OnUsageError:   onUsageError,
		ExitErrHandler: func(*urfave.Context, error) {},
		Commands: []*urfave.Command{
			serveCommand(e),
			zoneCommand(e),
			catalogCommand(e),
			keyCommand(e),
			tsigCommand(e),
			keystoreCommand(e),
			workerCommand(e),
			tokenCommand(e),
			policyCommand(e),
			planCommand(e),
			applyCommand(e),
			fleetCommand(e),
			migrateCommand(e),
			journalCommand(e),
			clusterCommand(e),
			auditCommand(e),
			clockCommand(e),
			reloadCommand(e),
			signzoneCommand(e),
			verifyCommand(e),
			checkCommand(e),
			tlsaCommand(e),
			simulateCommand(e),
			templateCommand(e),
			statusCommand(e),
			alarmsCommand(e),
			logLevelCommand(e),
			healthCommand(e),
			versionCommand(e),
			completionCommand(e),
			helpCommand(e),
		},
		CustomAppHelpTemplate: appHelpTemplate,
	}
	hideHelp(app.Commands)
	return app
}

// hideHelp keeps the library from taking an argument "help" or "h" for a
// command: it may be a zone.
func hideHelp(commands []*urfave.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true
		hideHelp(c.Subcommands)
	}
}

// defaultSockets names where a client looks for the daemon.
const defaultSockets = "unix:./sluice-data/sluice.sock, then unix:/run/sluice/sluice.sock"

// setGlobals takes over what the global flags say.
func (e *env) setGlobals(c *urfave.Context) error {
	e.apiAddress, e.apiRoots, e.tokenFile = c.String("api"), c.String("api-roots"), c.String("token-file")
	e.json = c.Bool("json")
	e.color = !e.json && !c.Bool("no-color") && e.getenv("NO_COLOR") == "" && isTerminal(e.stdout)
	e.unicode = e.color && isUTF8(e.getenv)
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return usagef("--log-level %q: want debug, info, warn or error", c.String("log-level"))
	}
	e.log = slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: level}))
	return nil
}

// errSilent ends a command with exit code 1 after it has said why itself.
var errSilent = errors.New("failed")

// usageError is a wrong command line.
type usageError struct {
	msg  string
	hint string
}

func (u *usageError) Error() string { return u.msg }

// usagef makes a usageError.
func usagef(format string, args ...any) error {
	return &usageError{msg: fmt.Sprintf(format, args...)}
}

// hinted is an error with what to do next.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// withHint adds what to do next to an error; nil stays nil.
func withHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// hintOf finds what to do next.
func hintOf(err error) string {
	if u, ok := errors.AsType[*usageError](err); ok {
		return u.hint
	}
	if h, ok := errors.AsType[*hinted](err); ok {
		return h.hint
	}
	return ""
}

// exitCode is the one table from errors to exit codes.
func exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage), errors.Is(err, api.ErrRequest), errors.Is(err, pipeline.ErrInvalid):
		return 2
	case errors.Is(err, pipeline.ErrNotFound):
		return 3
	case errors.Is(err, pipeline.ErrState), errors.Is(err, journal.ErrLocked), errors.Is(err, journal.ErrMode), errors.Is(err, journal.ErrRefused),
		errors.Is(err, api.ErrNotAllowed), errors.Is(err, api.ErrTooMany):
		return 4
	case errors.Is(err, api.ErrUnreachable):
		return 5
	case errors.Is(err, errChanges):
		return 10
	default:
		return 1
	}
}

func onUsageError(c *urfave.Context, err error, _ bool) error {
	return &usageError{msg: err.Error(), hint: "see: sluice help" + suffix(commandPath(c))}
}

// commandMissing is the action of everything that only has subcommands.
func commandMissing(c *urfave.Context) error {
	path := commandPath(c)
	if name := c.Args().First(); name != "" {
		u := &usageError{msg: fmt.Sprintf("unknown command %q", strings.TrimSpace(path+" "+name))}
		u.hint = "see: sluice help" + suffix(path)
		if near := nearCommand(c.Command.Subcommands, name, path == ""); near != "" {
			u.hint = fmt.Sprintf("did you mean: sluice%s %s", suffix(path), near)
		}
		return u
	}
	if err := urfave.ShowSubcommandHelp(c); err != nil {
		return err
	}
	return &usageError{msg: "a command is missing", hint: "see: sluice help" + suffix(path)}
}

// nearCommand is the command that was likely meant by name; empty where none is
// like it. The library knows help everywhere, we know it on top alone.
func nearCommand(commands []*urfave.Command, name string, top bool) string {
	seen := slices.DeleteFunc(slices.Clone(commands), func(c *urfave.Command) bool { return c.Hidden })
	var near string
	if _, err := fmt.Sscanf(urfave.SuggestCommand(seen, name), urfave.SuggestDidYouMeanTemplate, &near); err != nil {
		return ""
	}
	// The library always finds something.
	if near == "h" || near == "help" && !top || near[0] != name[0] && !strings.Contains(near, name) && !strings.Contains(name, near) {
		return ""
	}
	return near
}

// commandPath is the path of c's command without the program's name.
func commandPath(c *urfave.Context) string {
	return strings.TrimSpace(strings.TrimPrefix(c.Command.HelpName, c.App.Name))
}

func suffix(path string) string {
	if path == "" {
		return ""
	}
	return " " + path
}

// arguments checks how many arguments there are and names the missing ones.
func arguments(c *urfave.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	hint := "usage: sluice " + strings.Join(append([]string{commandPath(c)}, names...), " ")
	if len(args) < len(names) {
		return nil, &usageError{msg: fmt.Sprintf("%s is missing", names[len(args)]), hint: hint}
	}
	if len(args) > len(names) {
		return nil, &usageError{msg: fmt.Sprintf("unexpected argument %q", args[len(names)]), hint: hint}
	}
	return args, nil
}
