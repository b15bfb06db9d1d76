package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/journal/event"
	"sluice/pipeline"
)

func catalogCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:         "catalog",
		Usage:        "take zones from catalog zones (RFC 9432), and list published zones in one",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands: []*urfave.Command{
			catalogAdd(e), catalogProduce(e), catalogList(e), catalogShow(e), catalogSet(e), catalogApprove(e), catalogRemove(e),
		},
	}
}

// consumedFlags are those of a catalog that is consumed.
func consumedFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "source", Usage: "where the catalog comes from: servers as IP[:PORT][^TSIGKEY], separated by commas (`SERVERS`)"},
		&urfave.StringFlag{Name: "policy", Usage: "`NAME` of the policy of members without a group that is mapped; default where nothing is said"},
		&urfave.StringSliceFlag{Name: "group", Usage: "members of a group have a policy: `GROUP=POLICY`; may stand several times, the first that fits counts"},
		&urfave.StringFlag{Name: "member-source", Usage: "where members come from: `SERVERS` as above", DefaultText: "those of the catalog"},
		&urfave.Uint64Flag{Name: "max-members", Usage: "a catalog with more than `N` members is broken", DefaultText: "100000"},
		&urfave.StringFlag{Name: "max-removals", Usage: "at most so many members go at once: `N`, P% or N,P% (whichever is more); more wait for catalog approve", DefaultText: "10,10%"},
		&urfave.StringFlag{Name: "removal-delay", Usage: "remove a member so long after the catalog lists it no more (`DURATION`)", DefaultText: "7d"},
	}
}

func catalogAdd(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "add", Usage: "follow a catalog zone: its members become zones that are signed", ArgsUsage: "NAME",
		Description:  "The catalog is transferred like any zone, and every version is checked before it counts.\nA zone that is here already is never taken over.",
		OnUsageError: onUsageError,
		Flags:        append(consumedFlags(), noWaitFlag()),
		Action: e.catalogAction(func(c *urfave.Context, client *api.Client, args []string) error {
			if c.String("source") == "" {
				return &usageError{msg: "--source is missing", hint: "usage: sluice catalog add NAME --source IP[:PORT][^TSIGKEY]"}
			}
			n := pipeline.NewCatalog{Name: args[0], Kind: event.CatalogConsumed, Source: c.String("source"), Policy: c.String("policy")}
			var err error
			if n.Groups, err = groupFlags(c, "GROUP=POLICY", false); err != nil {
				return err
			}
			n.MemberSource, n.MaxMembers = c.String("member-source"), c.Uint64("max-members")
			if n.MaxRemovals, n.MaxRemovalsPercent, err = removalsFlag(c); err != nil {
				return err
			}
			if n.RemovalDelay, err = delayFlag(c); err != nil {
				return err
			}
			return e.addCatalog(c, client, n)
		}),
	}
}

func catalogProduce(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "produce", Usage: "make a catalog zone of the zones that are published here", ArgsUsage: "NAME",
		Description:  "The catalog is served like any zone, to whom its policy lets fetch it. The policy has\nsigner.mode = \"unsigned\"; its send-notify-to says who is told of changes.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "policy", Usage: "`NAME` of the policy of the catalog zone itself"},
			&urfave.StringSliceFlag{Name: "group", Usage: "zones with a policy are in a group: `POLICY=GROUP`; may stand several times"},
			&urfave.StringSliceFlag{Name: "zones", Usage: "which zones are listed: all, or those with a policy, policy=NAME; may stand several times (`WHICH`)", DefaultText: "all"},
			noWaitFlag(),
		},
		Action: e.catalogAction(func(c *urfave.Context, client *api.Client, args []string) error {
			if c.String("policy") == "" {
				return &usageError{msg: "--policy is missing", hint: "it says who may fetch the catalog; usage: sluice catalog produce NAME --policy POLICY"}
			}
			n := pipeline.NewCatalog{Name: args[0], Kind: event.CatalogProduced, Policy: c.String("policy")}
			var err error
			if n.Groups, err = groupFlags(c, "POLICY=GROUP", true); err != nil {
				return err
			}
			if n.Policies, err = listedFlag(c); err != nil {
				return err
			}
			return e.addCatalog(c, client, n)
		}),
	}
}

// catalogAction is a command with a catalog as its first argument.
func (e *env) catalogAction(fn func(c *urfave.Context, client *api.Client, args []string) error) urfave.ActionFunc {
	return func(c *urfave.Context) error {
		args, err := arguments(c, "NAME")
		if err != nil {
			return err
		}
		if _, err := parseZone(args[0]); err != nil {
			return err
		}
		return e.clientAction(func(client *api.Client) error { return hintCatalog(fn(c, client, args)) })
	}
}

// hintCatalog says where to look for what is missing.
func hintCatalog(err error) error {
	if hintOf(err) != "" || !errors.Is(err, pipeline.ErrNotFound) {
		return err
	}
	if strings.HasPrefix(err.Error(), "catalog ") {
		return withHint(err, "see: sluice catalog list")
	}
	return withHint(err, "%s", missingHint(err, ""))
}

// addCatalog adds a catalog, and waits until its own zone is published.
func (e *env) addCatalog(c *urfave.Context, client *api.Client, n pipeline.NewCatalog) error {
	st, err := client.AddCatalog(c.Context, n)
	if err != nil {
		return err
	}
	if !c.Bool("no-wait") {
		m := e.newMeter()
		zone, err := client.Await(c.Context, n.Name, m.show)
		m.end()
		if err != nil {
			return err
		}
		if st, err = client.Catalog(c.Context, n.Name); err != nil {
			return err
		}
		if zone.LastError != "" {
			if err := e.printCatalog(st); err != nil {
				return err
			}
			return errSilent
		}
	}
	return e.printCatalog(st)
}

// groupFlags reads --group; swapped where the policy stands first.
func groupFlags(c *urfave.Context, want string, swapped bool) ([]event.CatalogGroup, error) {
	var out []event.CatalogGroup
	for _, text := range c.StringSlice("group") {
		i := strings.LastIndex(text, "=") // a group may have one in it
		if swapped {
			i = strings.Index(text, "=")
		}
		if i <= 0 || i == len(text)-1 {
			return nil, usagef("--group %q: want %s", text, want)
		}
		g := event.CatalogGroup{Group: text[:i], Policy: text[i+1:]}
		if swapped {
			g = event.CatalogGroup{Group: text[i+1:], Policy: text[:i]}
		}
		out = append(out, g)
	}
	return out, nil
}

// removalsFlag reads --max-removals; nil where it is not given.
func removalsFlag(c *urfave.Context) (number, percent *uint64, err error) {
	if !c.IsSet("max-removals") {
		return nil, nil, nil
	}
	text := c.String("max-removals")
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		digits, isPercent := strings.CutSuffix(part, "%")
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 32)
		switch {
		case err != nil || isPercent && (n > 100 || percent != nil) || !isPercent && number != nil:
			return nil, nil, usagef("--max-removals %q: want a number, a percentage such as 10%%, or both, 10,10%%", text)
		case isPercent:
			percent = &n
		default:
			number = &n
		}
	}
	return number, percent, nil
}

// delayFlag reads --removal-delay in seconds; nil where it is not given.
func delayFlag(c *urfave.Context) (*uint64, error) {
	if !c.IsSet("removal-delay") {
		return nil, nil
	}
	d, err := pipeline.ParseDuration(c.String("removal-delay"))
	if err != nil || d < 0 {
		return nil, usagef("--removal-delay %q: want a duration such as 7d", c.String("removal-delay"))
	}
	n := uint64(d / time.Second)
	return &n, nil
}

// listedFlag reads --zones; an empty list is all zones.
func listedFlag(c *urfave.Context) ([]string, error) {
	policies := []string{}
	for _, text := range c.StringSlice("zones") {
		if text == "all" {
			return []string{}, nil
		}
		name, ok := strings.CutPrefix(text, "policy=")
		if !ok || name == "" {
			return nil, usagef("--zones %q: want all, or policy=NAME", text)
		}
		policies = append(policies, name)
	}
	return policies, nil
}

func catalogSet(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "set", Usage: "change how a catalog is followed, or what it lists", ArgsUsage: "NAME",
		Description:  "What is not given stays. --group and --zones take the place of all that there were; the\ngroups of a catalog that is produced are POLICY=GROUP. What members have by hand stays.",
		OnUsageError: onUsageError,
		Flags: append(consumedFlags(),
			&urfave.BoolFlag{Name: "no-groups", Usage: "map no groups any more"},
			&urfave.StringSliceFlag{Name: "zones", Usage: "which zones a catalog that is produced lists: all, or policy=NAME (`WHICH`)"},
		),
		Action: e.catalogAction(func(c *urfave.Context, client *api.Client, args []string) error {
			st, err := client.Catalog(c.Context, args[0])
			if err != nil {
				return err
			}
			ch, err := catalogChange(c, st.Kind == event.CatalogProduced)
			if err != nil {
				return err
			}
			if ch == (pipeline.CatalogChange{}) {
				return &usageError{msg: "nothing to change", hint: "see: sluice catalog set --help"}
			}
			if st, err = client.SetCatalog(c.Context, args[0], ch); err != nil {
				return err
			}
			return e.printCatalog(st)
		}),
	}
}

func catalogChange(c *urfave.Context, produced bool) (ch pipeline.CatalogChange, err error) {
	ch.Source, ch.Policy, ch.MaxMembers = c.String("source"), c.String("policy"), c.Uint64("max-members")
	want := "GROUP=POLICY"
	if produced {
		want = "POLICY=GROUP"
	}
	groups, err := groupFlags(c, want, produced)
	if err != nil {
		return ch, err
	}
	if c.Bool("no-groups") {
		if len(groups) > 0 {
			return ch, usagef("want --group or --no-groups, not both")
		}
		groups = []event.CatalogGroup{}
	}
	if groups != nil {
		ch.Groups = &groups
	}
	if c.IsSet("member-source") {
		text := c.String("member-source")
		ch.MemberSource = &text
	}
	if ch.MaxRemovals, ch.MaxRemovalsPercent, err = removalsFlag(c); err != nil {
		return ch, err
	}
	if ch.RemovalDelay, err = delayFlag(c); err != nil {
		return ch, err
	}
	if c.IsSet("zones") {
		policies, err := listedFlag(c)
		if err != nil {
			return ch, err
		}
		ch.Policies = &policies
	}
	return ch, nil
}

func catalogApprove(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "approve", Usage: "let the removals through that are held, because too many members went at once", ArgsUsage: "NAME",
		OnUsageError: onUsageError,
		Flags:        []urfave.Flag{&urfave.StringFlag{Name: "reason", Usage: "why, for the history (`TEXT`)"}},
		Action: e.catalogAction(func(c *urfave.Context, client *api.Client, args []string) error {
			if strings.TrimSpace(c.String("reason")) == "" {
				return &usageError{msg: "--reason is missing", hint: "usage: sluice catalog approve NAME --reason TEXT"}
			}
			st, err := client.ApproveCatalog(c.Context, args[0], c.String("reason"))
			if err != nil {
				return err
			}
			return e.printCatalog(st)
		}),
	}
}

func catalogRemove(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "remove", Usage: "end a catalog; its members are removed after the removal delay, or stay", ArgsUsage: "NAME",
		OnUsageError: onUsageError,
		Flags:        []urfave.Flag{&urfave.BoolFlag{Name: "keep-members", Usage: "members stay as zones on their own; the same catalog added again takes them up"}},
		Action: e.catalogAction(func(c *urfave.Context, client *api.Client, args []string) error {
			st, err := client.Catalog(c.Context, args[0])
			if err != nil {
				return err
			}
			keep := c.Bool("keep-members")
			if err := client.RemoveCatalog(c.Context, args[0], keep); err != nil {
				return err
			}
			if e.json {
				return e.printJSON(map[string]any{"catalog": st.Name, "removed": true, "keep_members": keep || st.Kind == event.CatalogProduced})
			}
			switch {
			case st.Kind == event.CatalogProduced:
				return e.printf("catalog %s removed\n", st.Name)
			case keep:
				return e.printf("catalog %s removed; %s stay as zones on their own\n", st.Name, count(uint64(max(0, st.Members)), "member"))
			}
			return e.printf("catalog %s ends: each of %s is removed %s after that is announced, and the catalog after the last of them\n",
				st.Name, count(uint64(max(0, st.Members)), "member"), time.Duration(st.RemovalDelay)*time.Second) //nolint:gosec // bounded at the door
		}),
	}
}

func catalogList(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "list the catalog zones, one line each",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				list, err := client.Catalogs(c.Context)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(list)
				}
				rows := make([][]string, 0, len(list))
				for _, s := range list {
					rows = append(rows, []string{s.Name, s.Kind, s.State, serialText(s.Serial), strconv.Itoa(s.Members), strconv.Itoa(s.Removals), strconv.Itoa(len(s.Notices))})
				}
				return e.table([]string{"NAME", "KIND", "STATE", "SERIAL", "MEMBERS", "REMOVALS", "NOTICES"}, rows)
			})
		},
	}
}

func catalogShow(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "show", Usage: "tell how a catalog is, or list its members", ArgsUsage: "NAME [members]",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			words := c.Args().Slice()
			members := len(words) == 2 && words[1] == "members"
			if len(words) != 1 && !members {
				return &usageError{msg: "want NAME, or NAME members", hint: "usage: sluice catalog show NAME [members]"}
			}
			if _, err := parseZone(words[0]); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				if members {
					list, err := client.CatalogMembers(c.Context, words[0])
					if err != nil {
						return hintCatalog(err)
					}
					return e.printMembers(list)
				}
				st, err := client.Catalog(c.Context, words[0])
				if err != nil {
					return hintCatalog(err)
				}
				return e.printCatalog(st)
			})
		},
	}
}

func (e *env) printMembers(list []pipeline.CatalogMember) error {
	if e.json {
		return e.printJSON(list)
	}
	rows := make([][]string, 0, len(list))
	for _, m := range list {
		note := m.Note
		if m.RemovalAt != nil {
			note = "removed at " + when(*m.RemovalAt)
		}
		rows = append(rows, []string{m.Zone, m.State, orDash(m.Group), orDash(m.Policy), orDash(m.Label), orDash(note)})
	}
	return e.table([]string{"ZONE", "STATE", "GROUP", "POLICY", "LABEL", "NOTE"}, rows)
}

// printCatalog tells how a catalog is.
func (e *env) printCatalog(s pipeline.CatalogStatus) error {
	if e.json {
		return e.printJSON(s)
	}
	var limits, removals string
	if s.Kind == event.CatalogConsumed {
		limits = fmt.Sprintf("%d members; at once %s removed; removals after %s", s.MaxMembers, removalsText(s), time.Duration(s.RemovalDelay)*time.Second) //nolint:gosec // bounded at the door
	}
	if s.Removals > 0 {
		removals = strconv.Itoa(s.Removals) + " announced"
		if s.NextRemoval != nil {
			removals += ", the next at " + when(*s.NextRemoval)
		}
	}
	members := strconv.Itoa(s.Members)
	if s.Waiting > 0 {
		members += fmt.Sprintf(", %d not added yet", s.Waiting)
	}
	if s.Conflicts > 0 {
		members += fmt.Sprintf(", %d not taken up", s.Conflicts)
	}
	groups := make([]string, 0, len(s.Groups))
	for _, g := range s.Groups {
		groups = append(groups, fmt.Sprintf("%s: policy %s", g.Group, g.Policy))
	}
	zones := ""
	if s.Kind == event.CatalogProduced {
		zones = "all"
		if len(s.Policies) > 0 {
			zones = "those with policy " + strings.Join(s.Policies, ", ")
		}
	}
	err := e.fields(
		"catalog", s.Name, "kind", s.Kind, "state", s.State, "source", s.Source, "serial", serialText(s.Serial),
		"members", members, "removals", removals, "policy", s.Policy, "groups", strings.Join(groups, "; "), "zones", zones,
		"members from", s.MemberSource, "limits", limits,
	)
	if err != nil {
		return err
	}
	return e.printNotices(pipeline.ZoneStatus{ZoneSummary: pipeline.ZoneSummary{Notices: s.Notices}})
}

func removalsText(s pipeline.CatalogStatus) string {
	switch {
	case s.MaxRemovalsPercent == 0:
		return strconv.FormatUint(s.MaxRemovals, 10)
	case s.MaxRemovals == 0:
		return fmt.Sprintf("%d %%", s.MaxRemovalsPercent)
	}
	return fmt.Sprintf("%d, or %d %% where that is more,", s.MaxRemovals, s.MaxRemovalsPercent)
}

// catalogText says what catalogs have to do with a zone.
func catalogText(s pipeline.ZoneStatus) string {
	switch {
	case s.Catalog != "":
		return "the zone is a catalog, " + s.Catalog + ": sluice catalog show " + s.Name
	case s.Member == nil:
		return ""
	}
	text := s.Member.Catalog + " lists it"
	if s.Member.RemovalAt != nil {
		return s.Member.Catalog + " lists it no more: removed at " + when(*s.Member.RemovalAt)
	}
	if s.Member.Group != "" {
		text += fmt.Sprintf(" in group %q", s.Member.Group)
	}
	return text
}
