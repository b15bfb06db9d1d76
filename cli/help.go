package cli

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
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
{{end}}   --help, -h{{"\t"}}explain a command, as sluice help does
   --version{{"\t"}}print the version, as sluice version does

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
				return e.explained(c, c.App.Name, func() error { return e.overview(c) })
			}
			if commands := findCommand(c.App, words); commands != nil {
				return e.explained(c, strings.Join(commands, " "), func() error {
					return c.App.RunContext(c.Context, slices.Concat([]string{c.App.Name}, commands, []string{"--help"}))
				})
			}
			if len(words) == 1 {
				name := strings.ToLower(words[0])
				if text, found := readPage(c.App, name); found {
					return e.explained(c, name, func() error { return e.printf("%s", pageText(text)) })
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

// explained prints what show does; in JSON as the text of what name says.
func (e *env) explained(c *urfave.Context, name string, show func() error) error {
	if !e.json {
		return show()
	}
	var text strings.Builder
	out := e.stdout
	e.stdout, c.App.Writer = &text, &text
	err := show()
	e.stdout, c.App.Writer = out, out
	if err != nil {
		return err
	}
	return e.printJSON(map[string]string{"name": name, "text": text.String()})
}

// findCommand finds the command that words name; nil where there is none.
func findCommand(app *urfave.App, words []string) []string {
	var path []string
	commands := app.Commands
	for _, w := range words {
		i := slices.IndexFunc(commands, func(c *urfave.Command) bool { return c.HasName(w) })
		if i < 0 {
			return nil
		}
		path = append(path, commands[i].Name)
		commands = commands[i].Subcommands
	}
	return path
}

// readPage reads a page of the manual, in Markdown.
func readPage(app *urfave.App, topic string) (text string, found bool) {
	if topic == commandsTopic {
		return commandsPage(app), true
	}
	raw, err := manual.ReadFile(pages()[topic])
	return string(raw), err == nil
}

// topics lists the names of the manual's pages.
func topics() []string { return slices.Sorted(maps.Keys(pages())) }

// pages finds the manual's pages: files by name in lower case, "" for the one
// that is made.
func pages() map[string]string {
	found := map[string]string{commandsTopic: ""}
	entries, err := fs.ReadDir(manual, "docs")
	if err != nil {
		return found // docs is embedded: it is there
	}
	for _, e := range entries {
		name := strings.ToLower(strings.TrimSuffix(e.Name(), ".md"))
		found[name] = path.Join("docs", e.Name())
	}
	return found
}
