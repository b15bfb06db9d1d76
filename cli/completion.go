package cli

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
)

var (
	//go:embed completion/bash
	bashCompletion string
	//go:embed completion/zsh
	zshCompletion string
	//go:embed completion/fish
	fishCompletion string
)

func completionCommand(e *env) *urfave.Command {
	script := func(shell, where, text string) *urfave.Command {
		return &urfave.Command{
			Name: shell, Usage: "completion for " + shell + ": " + where,
			OnUsageError: onUsageError,
			Action: func(c *urfave.Context) error {
				if _, err := arguments(c); err != nil {
					return err
				}
				if e.json {
					return e.printJSON(map[string]string{"name": shell, "text": text})
				}
				return e.printf("%s", text)
			},
		}
	}
	return &urfave.Command{
		Name:         "completion",
		Usage:        "print what makes a shell complete commands, flags and zones",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands: []*urfave.Command{
			script("bash", "source <(sluice completion bash)", bashCompletion),
			script("zsh", "source <(sluice completion zsh)", zshCompletion),
			script("fish", "sluice completion fish | source", fishCompletion),
			{
				Name: "words", Hidden: true, Usage: "what may stand in place of the last word", ArgsUsage: "-- WORD...",
				OnUsageError: onUsageError,
				Action: func(c *urfave.Context) error {
					for _, w := range e.complete(c.Context, c.App, c.Args().Slice()) {
						if err := e.printf("%s\t%s\n", w.text, w.usage); err != nil {
							return err
						}
					}
					return nil
				},
			},
		},
	}
}

// candidate is a word that may stand on a command line.
type candidate struct{ text, usage string }

// complete lists what may stand in place of the last of words; nothing where
// it may be a file.
func (e *env) complete(ctx context.Context, app *urfave.App, words []string) []candidate {
	if len(words) == 0 {
		return nil
	}
	o := ordering{globals: app.Flags, commands: app.Commands}
	var found []candidate
	last := words[len(words)-1]
	for rest := words[:len(words)-1]; len(rest) > 0; {
		arg := rest[0]
		rest = rest[1:]
		switch {
		case arg == "--":
			return nil
		case !isFlag(arg):
			o.word(arg)
		default:
			used, err := o.flag(arg, rest)
			e.askedOf(o.before)
			if err != nil {
				// The last word is the value of this flag, or nothing is known of it.
				return fitting(e.flagValues(ctx, o.path, strings.TrimLeft(arg, "-")), last)
			}
			rest = rest[used:]
		}
	}
	switch {
	case isFlag(last):
		found = o.flagNames()
	case len(o.words) == 0 && len(o.commands) > 0:
		found = commandNames(o.commands)
	case o.command == nil:
	case o.command.Name == "help":
		found = helpNames(app, o.words)
	case len(o.words) == 0 && strings.HasPrefix(strings.Trim(o.command.ArgsUsage, "["), "ZONE"):
		found = e.zoneNames(ctx)
	default:
		found = e.argumentValues(ctx, o.path, o.words)
	}
	return fitting(found, last)
}

// askedOf takes the daemon that global flags name.
func (e *env) askedOf(globals []string) {
	if i := slices.Index(globals, "--api"); i >= 0 && i+1 < len(globals) {
		e.apiAddress = globals[i+1]
	}
}

// fitting are those that begin with what was typed.
func fitting(found []candidate, typed string) []candidate {
	return slices.DeleteFunc(found, func(w candidate) bool { return !strings.HasPrefix(w.text, typed) })
}

func commandNames(commands []*urfave.Command) []candidate {
	var found []candidate
	for _, c := range commands {
		if !c.Hidden {
			found = append(found, candidate{c.Name, c.Usage})
		}
	}
	return found
}

// flagNames lists the flags of the command named so far, and the global ones.
func (o *ordering) flagNames() []candidate {
	flags := slices.Clone(o.globals)
	if o.command != nil {
		flags = append(slices.Clone(o.command.Flags), flags...)
	}
	found := []candidate{{"--help", "explain the command"}}
	for _, f := range flags {
		usage := ""
		if d, ok := f.(urfave.DocGenerationFlag); ok {
			usage = strings.ReplaceAll(d.GetUsage(), "`", "")
		}
		for _, name := range f.Names() {
			if len(name) > 1 {
				found = append(found, candidate{"--" + name, usage})
			}
		}
	}
	return found
}

// helpNames lists what may stand behind help and words.
func helpNames(app *urfave.App, words []string) []candidate {
	o := ordering{commands: app.Commands}
	for _, w := range words {
		o.word(w)
	}
	if len(o.words) > 0 {
		return nil
	}
	found := commandNames(o.commands)
	if len(words) == 0 {
		for _, topic := range topics() {
			found = append(found, candidate{topic, "a page of the manual"})
		}
	}
	return found
}

// completionTimeout is how long a daemon may take to tell its zones: a person
// waits.
const completionTimeout = time.Second

// zoneNames lists the daemon's zones; without a daemon there are none.
func (e *env) zoneNames(ctx context.Context) []candidate {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	var found []candidate
	_ = e.clientAction(func(client *api.Client) error { // a person who completes wants no error
		zones, err := client.Zones(ctx)
		for _, z := range zones {
			found = append(found, candidate{z.Name, fmt.Sprintf("%s, policy %s", z.State, z.Policy)})
		}
		return err
	})
	return found
}
