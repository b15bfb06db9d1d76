// Command cmd writes a generated zone to standard output:
//
//	go run ./e2e/zonegen/cmd -kind tld -n 1000000 > tld1m.zone
package main

import (
	"flag"
	"fmt"
	"os"

	"sluice/e2e/zonegen"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "zonegen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var c zonegen.Config
	flags := flag.NewFlagSet("zonegen", flag.ExitOnError)
	flags.StringVar((*string)(&c.Kind), "kind", string(zonegen.TLD), "tld or hosting")
	flags.IntVar(&c.Names, "n", 1000, "names below the apex")
	flags.StringVar(&c.Zone, "zone", "", "apex (tld. or hosting.example.)")
	serial := flags.Uint("serial", 1, "SOA serial before any change")
	flags.IntVar(&c.Change, "change", 0, "number of names that an edit changes")
	flags.BoolVar(&c.ModifyOnly, "modify-only", false, "change one signed RRset in place at each of them")
	round := flags.Uint("round", 1, "tells one set of changes from another")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	c.Serial, c.Round = uint32(*serial), uint32(*round)
	return zonegen.Write(os.Stdout, c)
}
