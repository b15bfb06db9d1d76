package cli

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"

	urfave "github.com/urfave/cli/v2"
)

//go:embed docs/*.md
var manual embed.FS

const appHelpTemplate = `{{.Name}}: {{.Usage}}

usage: {{.Name}} [global flags] COMMAND [arguments] [flags]

commands:
{{range .VisibleCommands}}   {{join .Names ", "}}{{"\t"}}{{.Usage}}
{{end}}
global flags:
{{range .VisibleFlags}}   {{.}}
{{end}}
Flags may stand before or after arguments. More: {{.Name}} help COMMAND, {{.Name}} help TOPIC
`

func helpCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:      "help",
		Usage:     "explain a command, or show a page of the manual",
		ArgsUsage: "[COMMAND... | TOPIC]",
		Action: func(c *urfave.Context) error {
			words := c.Args().Slice()
			if len(words) == 0 {
				return e.overview(c)
			}
			if found, err := helpFor(c, words); found {
				return err
			}
			if len(words) == 1 {
				if page, err := manual.ReadFile(path.Join("docs", words[0]+".md")); err == nil {
					_, err = e.stdout.Write(page)
					return err
				}
			}
			return &usageError{
				msg:  fmt.Sprintf("no command and no help topic %q", strings.Join(words, " ")),
				hint: "topics: " + strings.Join(topics(), ", ") + "; commands: sluice help",
			}
		},
	}
}

// overview is sluice help without a topic.
func (e *env) overview(c *urfave.Context) error {
	if err := urfave.ShowAppHelp(c); err != nil {
		return err
	}
	_, err := fmt.Fprintf(e.stdout, "Topics: %s\n", strings.Join(topics(), ", "))
	return err
}

// helpFor shows the help of the command that words name, and reports whether
// there is one.
func helpFor(c *urfave.Context, words []string) (found bool, err error) {
	argv := []string{c.App.Name}
	commands := c.App.Commands
	for _, w := range words {
		var next *urfave.Command
		for _, known := range commands {
			if known.HasName(w) {
				next = known
			}
		}
		if next == nil {
			return false, nil
		}
		argv = append(argv, next.Name)
		commands = next.Subcommands
	}
	return true, c.App.RunContext(c.Context, append(argv, "--help"))
}

// topics lists the pages of the manual.
func topics() []string {
	entries, err := fs.ReadDir(manual, "docs")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".md"))
	}
	return names
}
