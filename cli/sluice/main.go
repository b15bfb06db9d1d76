// Sluice signs DNS zones on their way from a primary to its secondaries.
package main

import (
	"os"

	"sluice/cli"
)

func main() { os.Exit(cli.Main()) }
