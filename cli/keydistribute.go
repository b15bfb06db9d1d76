package cli

import (
	"cmp"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func keyDistribute(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "distribute", Usage: "hand the keys of a zone, or of all, to the workers that are to have them, now; who has which", ArgsUsage: "[ZONE]",
		Description: "Keys go by themselves to each worker with the role sign or keys, encrypted to it alone. This\n" +
			"tries again at once what failed, and says who proved which keys and who is away. No key is put to use\n" +
			"before each of these workers has proved it.",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			name, err := zoneOrAll(c.Args().Slice())
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				shares, err := client.DistributeKeys(c.Context, name)
				if err != nil {
					return err
				}
				return e.printShares(shares)
			})
		},
	}
}

func (e *env) printShares(shares []pipeline.KeyShare) error {
	if e.json {
		return e.printJSON(shares)
	}
	if len(shares) == 0 {
		return e.printf("no other worker is to have keys; see: sluice worker list\n")
	}
	rows := make([][]string, 0, len(shares))
	for _, s := range shares {
		lacks := "-"
		if len(s.Lacks) > 0 {
			lacks = strings.Join(s.Lacks, ", ")
		}
		rows = append(rows, []string{s.Zone, s.Worker, s.State, fmt.Sprint(len(s.Proved)), lacks, cmp.Or(s.Reason, "-")})
	}
	return e.table([]string{"ZONE", "WORKER", "STATE", "KEYS", "LACKS", "REASON"}, rows)
}
