package cli

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	urfave "github.com/urfave/cli/v2"
)

func orderApp() *urfave.App {
	flags := []urfave.Flag{
		&urfave.StringFlag{Name: "output", Aliases: []string{"o"}},
		&urfave.BoolFlag{Name: "force"},
	}
	return &urfave.App{
		Name:  "sluice",
		Flags: []urfave.Flag{&urfave.BoolFlag{Name: "json"}, &urfave.StringFlag{Name: "api"}},
		Commands: []*urfave.Command{
			{Name: "zone", Subcommands: []*urfave.Command{{Name: "add", Flags: flags}, {Name: "list"}}},
			{Name: "verify", Flags: flags},
		},
	}
}

func TestOrderFlags_AnyOrder(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"in order already", "--json zone add --force x", "--json zone add --force -- x"},
		{"flags behind arguments", "zone add x --force --json", "--json zone add --force -- x"},
		{"between", "zone --api unix:s add x -o f y", "--api unix:s zone add -o f -- x y"},
		{"with an equals sign", "verify x -o=f --api=unix:s", "--api=unix:s verify -o=f -- x"},
		{"value that looks like a flag", "verify -o --force x", "verify -o --force -- x"},
		{"value that looks like a command", "--api zone verify x", "--api zone verify -- x"},
		{"argument that looks like a command", "verify zone add", "verify -- zone add"},
		{"all behind -- are arguments", "verify -- --force -o", "verify -- --force -o"},
		{"a lone dash is an argument", "verify - -o -", "verify -o - -- -"},
		{"help anywhere", "zone add x -h --json --force", "--json help zone add"},
		{"help of everything", "--help", "help"},
		{"help of a group", "-h zone", "help zone"},
		{"help of an unknown command", "zone ad --help", "zone -- ad"},
		{"version of the program", "--json --version", "--json version"},
		{"version in front of a command", "--version zone list", "version"},
		{"a time before now", "zone add x -2h -o -1h", "zone add -o -1h -- x -2h"},
		{"unknown command stays", "zone ad x", "zone -- ad x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := orderFlags(orderApp(), strings.Fields(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOrderFlags_Mistakes(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"unknown flag", "verify --nothing", "unknown flag --nothing"},
		{"flag of another command", "zone list --force", "unknown flag --force"},
		{"flag before its command", "--force verify", "unknown flag --force"},
		{"version of a command", "zone list --version", "unknown flag --version"},
		{"value missing", "verify x -o", "flag -o needs a value"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := orderFlags(orderApp(), strings.Fields(test.in))
			var u *usageError
			if !errors.As(err, &u) || u.msg != test.want || u.hint == "" {
				t.Errorf("error %v", err)
			}
		})
	}
}

func FuzzOrderFlags(f *testing.F) {
	f.Add("zone add x --force --api=y -- -o")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Fields(line)
		got, err := orderFlags(orderApp(), args)
		if err == nil && len(got) > len(args)+1 {
			t.Errorf("%q became %q", args, got)
		}
	})
}

func TestManPage_HasEveryCommandAndFlag(t *testing.T) {
	page, err := manPage(&env{})
	if err != nil {
		t.Fatal(err)
	}
	var walk func(path string, commands []*urfave.Command)
	walk = func(path string, commands []*urfave.Command) {
		for _, c := range commands {
			if c.Hidden {
				continue
			}
			if name := path + c.Name; !strings.Contains(page, " "+name+"\n") {
				t.Errorf("no section for %q", name)
			}
			for _, f := range c.Flags {
				if !strings.Contains(page, "\\fB--"+f.Names()[0]) {
					t.Errorf("%s%s: no flag %s", path, c.Name, f.Names()[0])
				}
			}
			walk(path+c.Name+" ", c.Subcommands)
		}
	}
	walk("", newApp(&env{}).Commands)
}
