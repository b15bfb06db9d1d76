package cli

import (
	"fmt"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"
)

// orderFlags puts a command line into the order that the parser wants: global
// flags, command, its flags, "--", arguments. Flags may stand anywhere in
// args; after "--" everything is an argument. --help becomes the command help,
// --version the command version. An unknown flag, or one without its value, is
// a usageError.
func orderFlags(app *urfave.App, args []string) ([]string, error) {
	var o ordering
	o.globals = app.Flags
	o.commands = app.Commands
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			o.words = append(o.words, args...)
			break
		}
		if !isFlag(arg) {
			o.word(arg)
			continue
		}
		used, err := o.flag(arg, args)
		if err != nil {
			return nil, err
		}
		args = args[used:]
	}
	return o.result(), nil
}

// isFlag tells a flag from a word; "-" is a stream, "-2h" a time.
func isFlag(arg string) bool {
	return len(arg) >= 2 && arg[0] == '-' && (arg[1] < '0' || arg[1] > '9')
}

// ordering is a command line half read.
type ordering struct {
	globals  []urfave.Flag
	commands []*urfave.Command // what the next word may name
	command  *urfave.Command   // the innermost one named so far

	path   []string // words that name the command
	words  []string // arguments
	before []string // global flags with their values
	help   bool     // --help is among the flags
	about  bool     // --version is
	flags  []string // other flags with their values
}

// word takes a word that is not a flag.
func (o *ordering) word(arg string) {
	if len(o.words) == 0 {
		for _, c := range o.commands {
			if c.HasName(arg) {
				o.path = append(o.path, arg)
				o.command, o.commands = c, c.Subcommands
				return
			}
		}
	}
	o.words = append(o.words, arg)
}

// flag takes a flag and reports how many of the following words are its value.
func (o *ordering) flag(arg string, rest []string) (used int, err error) {
	name, _, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	switch {
	case name == "help" || name == "h":
		o.help = true
		return 0, nil
	case name == "version" && o.command == nil:
		o.about = true
		return 0, nil
	}
	to := &o.flags
	f := o.find(name)
	if g := findFlag(o.globals, name); f == nil && g != nil {
		f, to = g, &o.before
	}
	if f == nil {
		return 0, &usageError{
			msg:  fmt.Sprintf("unknown flag %s", strings.SplitN(arg, "=", 2)[0]),
			hint: "see: sluice help" + suffix(strings.Join(o.path, " ")),
		}
	}
	*to = append(*to, arg)
	if _, isBool := f.(*urfave.BoolFlag); isBool || inline {
		return 0, nil
	}
	if len(rest) == 0 {
		return 0, &usageError{
			msg:  fmt.Sprintf("flag %s needs a value", arg),
			hint: "see: sluice help" + suffix(strings.Join(o.path, " ")),
		}
	}
	*to = append(*to, rest[0])
	return 1, nil
}

// find looks for a flag of the command named so far.
func (o *ordering) find(name string) urfave.Flag {
	if o.command == nil {
		return nil
	}
	return findFlag(o.command.Flags, name)
}

func findFlag(flags []urfave.Flag, name string) urfave.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// result is the command line in order.
func (o *ordering) result() []string {
	switch {
	case len(o.words) > 0 && len(o.commands) > 0: // no command, whatever the flags
	case o.help:
		return append(append(o.before, "help"), o.path...)
	case o.about:
		return append(o.before, "version")
	}
	out := append(o.before, o.path...)
	out = append(out, o.flags...)
	if len(o.words) > 0 {
		out = append(append(out, "--"), o.words...)
	}
	return out
}
