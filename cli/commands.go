package cli

import (
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v2"
)

// commandsTopic is the page of the manual that is made from the commands
// themselves.
const commandsTopic = "commands"

// commandsPage is a page of all commands: how each is used, and its flags.
func commandsPage(app *urfave.App) string {
	var b strings.Builder
	b.WriteString("# Commands\n\nMade from the program itself. `sluice help COMMAND` shows one of them; flags may\nstand before or after arguments. These may stand with every command:\n\n")
	writeFlags(&b, app.VisibleFlags())
	for _, c := range app.Commands {
		if !c.Hidden {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n", c.Name, sentence(c.Usage))
			writeCommand(&b, app.Name+" "+c.Name, c)
		}
	}
	return b.String()
}

// writeCommand writes how a command is used, and those below it.
func writeCommand(b *strings.Builder, name string, c *urfave.Command) {
	if len(c.Subcommands) == 0 || len(c.Flags) > 0 {
		fmt.Fprintf(b, "\n    %s%s\n\n", name, suffix(c.ArgsUsage))
		if c.Description != "" {
			fmt.Fprintf(b, "%s\n\n", c.Description)
		}
		writeFlags(b, c.VisibleFlags())
	}
	for _, sub := range c.Subcommands {
		if sub.Hidden || sub.Name == "help" {
			continue
		}
		fmt.Fprintf(b, "\n### %s %s\n\n%s\n", strings.TrimPrefix(name, "sluice "), sub.Name, sentence(sub.Usage))
		writeCommand(b, name+" "+sub.Name, sub)
	}
}

// writeFlags writes flags, one an item of a list.
func writeFlags(b *strings.Builder, flags []urfave.Flag) {
	for _, f := range flags {
		d, ok := f.(urfave.DocGenerationFlag)
		if !ok || f.Names()[0] == "help" {
			continue
		}
		value, usage := unquoted(d.GetUsage())
		if d.TakesValue() && value == "" {
			value = "VALUE"
		}
		names := make([]string, 0, len(f.Names()))
		for _, n := range f.Names() {
			dashes := "--"
			if len(n) == 1 {
				dashes = "-"
			}
			names = append(names, dashes+n)
		}
		text := fmt.Sprintf("`%s%s`: %s", strings.Join(names, "`, `"), suffix(value), usage)
		if v := d.GetDefaultText(); v != "" && d.TakesValue() && v != `""` {
			text += " (default: " + strings.Trim(v, `"`) + ")"
		}
		b.WriteString("- " + text + "\n")
	}
}

// unquoted takes the name of a flag's value out of its usage, where it stands
// between backquotes.
func unquoted(usage string) (value, text string) {
	before, rest, ok := strings.Cut(usage, "`")
	if !ok {
		return "", usage
	}
	value, after, _ := strings.Cut(rest, "`")
	return value, before + value + after
}
