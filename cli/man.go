package cli

import (
	urfave "github.com/urfave/cli/v2"
)

// manSection is that of system administration commands.
const manSection = 8

// manDescription is what the page says beside the commands.
const manDescription = `Sluice stands between the place where a zone is made and the servers that
publish it: it loads the zone, signs it, verifies what it signed, and serves it
by AXFR and IXFR to secondaries. Every step is an event in a journal.

Flags may stand before or after arguments. The manual is inside the program:
**sluice help manual** names its pages, **sluice help COMMAND** explains a
command, **sluice template config** and **sluice template policy** explain every
option of the files, as sluice.toml(5) and sluice-policy(5) do.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 no such zone, policy, instance;
4 not possible in this state; 5 daemon not reachable.`

// manPage is a manual page of all commands, made from them.
func manPage(e *env) (string, error) {
	app := newApp(e)
	app.UsageText = app.Name + " [global flags] COMMAND [arguments] [flags]"
	app.Description = manDescription
	inFull(app.Name, "", app.Commands)
	return app.ToManWithSection(manSection)
}

// inFull gives commands their full names, and a line on how they are used.
func inFull(program, before string, commands []*urfave.Command) {
	for _, c := range commands {
		c.Name = before + c.Name
		if len(c.Subcommands) == 0 {
			c.UsageText = program + " " + c.Name + suffix(c.ArgsUsage)
		}
		inFull(program, c.Name+" ", c.Subcommands)
	}
}
