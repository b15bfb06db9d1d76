package migrate

import (
	"fmt"
	"strings"
	"time"

	"sluice/keymgr"
)

// text is a plan in the making.
type text struct{ strings.Builder }

func (t *text) f(format string, args ...any) { fmt.Fprintf(&t.Builder, format+"\n", args...) }

// list writes items, or nothing.
func (t *text) list(items []string) {
	for _, item := range items {
		t.f("- %s", item)
	}
	if len(items) > 0 {
		t.f("")
	}
}

// steps writes sentences and commands to type, in their order.
func (t *text) steps(steps []string) {
	code := false
	for _, s := range steps {
		command, is := strings.CutPrefix(s, "$ ")
		if is != code {
			t.f("")
		}
		code = is
		if is {
			t.f("    %s", command)
		} else {
			t.f("%s", s)
		}
	}
	if len(steps) > 0 {
		t.f("")
	}
}

// Markdown is the plan as a person reads it. dir is the folder that it is in.
func (p Plan) Markdown(dir string) string {
	t := &text{}
	title := Names()[p.Kind]
	keys, refused := 0, 0
	for _, z := range p.Zones {
		if keys += len(z.Keys); z.Refused != "" {
			refused++
		}
	}
	t.f("# From %s to Sluice\n", title)
	t.f("Read from `%s` at %s: %s. Zones: %d, of which %d can be taken over; keys: %d.", p.Source, p.At.Format(time.RFC3339), p.Software,
		len(p.Zones), len(p.Zones)-refused, keys)
	t.f("Nothing was changed, there or here. This folder holds private keys: nobody else may read it.\n")
	t.list(p.Kept)
	if len(p.Unequal) > 0 {
		t.f("## What has no equal here\n")
		t.list(p.Unequal)
	}
	p.whatToDo(t, dir, title)
	t.f("## Policies\n")
	t.f("What a policy does not say is as in `sluice template policy`. Change the files as you like before the import: what you change stays when the plan is made anew.\n")
	for _, policy := range p.Policies {
		t.f("### policies/%s.toml, from %s\n", policy.Name, orNone(policy.Former))
		if len(policy.Unequal) == 0 {
			t.f("Everything that it says has an equal here.\n")
		}
		t.list(policy.Unequal)
	}
	if len(p.TSIG) > 0 || len(p.Keystores) > 0 {
		t.f("## TSIG keys and tokens\n")
		for _, k := range p.TSIG {
			t.f("- TSIG key `%s` (%s), its secret in `%s`", k.Name, k.Algorithm, k.File)
		}
		for _, k := range p.Keystores {
			t.f("- keystore `%s`: token %q of `%s`%s", k.Name, k.Token, k.Module, pinText(k))
		}
		t.f("")
	}
	t.f("## Zones\n")
	for _, z := range p.Zones {
		z.markdown(t)
	}
	return t.String()
}

func orNone(name string) string {
	if name == "" {
		return "no policy of that name"
	}
	return "`" + name + "`"
}

func pinText(k PlannedKeystore) string {
	if k.PINFile == "" {
		return "; its PIN was not found: sluice keystore add " + k.Name
	}
	return fmt.Sprintf("; its PIN stands in `%s`", k.PINFile)
}

// whatToDo writes the steps of the whole way, and back.
func (p Plan) whatToDo(t *text, dir, title string) {
	t.f("## Step by step\n")
	t.f("Nothing that a validator sees changes before step 6. Until then the way back is `sluice migrate back %s --i-understand`.\n", dir)
	t.f("1. End the key management of %s; it goes on serving what it has signed. From here on no key may come, go or change its state there.\n", title)
	t.steps(p.Stop)
	t.f("2. Make the plan anew, since keys may have moved meanwhile:\n\n    sluice migrate %s %s -o %s\n", p.Kind, quote(p.Source)+p.only(), quote(dir))
	t.f("3. Look at what would become of each zone, and then import. It can be stopped at any time (Ctrl-C) and begun again.\n")
	t.f("    sluice migrate import %s --dry-run\n    sluice migrate import %[1]s\n", quote(dir))
	t.f("4. Wait until every zone is *ready*: Sluice serves it with the same keys, contents and DS, and a higher serial.\n\n    sluice migrate check %s\n", quote(dir))
	t.f("5. Allow the secondaries to transfer from Sluice: `provide-xfr-to` and `send-notify-to` in the policies. They are listed below with each zone.\n")
	t.f("6. Have the secondaries take the zones from Sluice in place of %s: one secondary first, one zone first. Then again `sluice migrate check`, until all are *switched*.\n", title)
	t.f("7. Stop %s once caches have forgotten what it served last, at the earliest after the longest TTL of the zones. Keep its files.\n", title)
	t.f("### The way back\n")
	t.f("Before step 6 this takes the zones away here; their keys and history stay:\n\n    sluice migrate back %s --i-understand\n", quote(dir))
	t.f("After step 6 the same command writes the keys as they stand now to `%s/back/`, names the serial that %s has to be above, and takes nothing away before it is told that the secondaries are back there (`--done`).\n", dir, title)
	t.steps(p.Back)
}

// only is the flags that named the zones.
func (p Plan) only() string {
	var b strings.Builder
	for _, name := range p.Only {
		b.WriteString(" --zone " + name)
	}
	return b.String()
}

// quote is a word as a shell reads it.
func quote(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=:@%,") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// markdown writes the plan of one zone.
func (z PlannedZone) markdown(t *text) {
	t.f("### %s\n", z.Zone)
	if z.Refused != "" {
		t.f("**Not taken over**: %s\n", z.Refused)
		t.list(z.Notes)
		return
	}
	t.f("Comes from `%s`, gets policy `%s`.%s\n", z.Source, z.Policy, z.serialText())
	if len(z.Keys) > 0 {
		t.f("| key | role | algorithm | state here | where |\n|---|---|---|---|---|")
		for _, k := range z.Keys {
			t.f("| %d (`%s`) | %s | %s | %s | %s |", k.Tag, k.ID, k.roleText(), keymgr.AlgorithmName(k.Algorithm), k.stateText(), k.where())
		}
		t.f("")
	} else {
		t.f("It has no keys: Sluice makes new ones. Where the parent has a DS of it, the import refuses it.\n")
	}
	if z.Primary != "" {
		t.f("Signed, it is at `%s` now.\n", z.Primary)
	}
	if len(z.Secondaries) > 0 {
		t.f("To be switched in step 6: `%s`.\n", strings.Join(z.Secondaries, "`, `"))
	} else {
		t.f("Its secondaries are not named there: switch whoever transfers it from there.\n")
	}
	t.list(z.Notes)
	if len(z.Unequal) > 0 {
		t.f("Has no equal here:\n")
		t.list(z.Unequal)
	}
	if len(z.Stop) > 0 {
		t.f("In step 1:\n")
		t.steps(z.Stop)
	}
	if len(z.Back) > 0 {
		t.f("On the way back:\n")
		t.steps(z.Back)
	}
}

func (z PlannedZone) serialText() string {
	if z.Serial == nil {
		return ""
	}
	return fmt.Sprintf(" Its serials here stand above %d.", *z.Serial)
}

func (k PlannedKey) roleText() string {
	if k.Public {
		return "another signer's"
	}
	return strings.ToUpper(string(k.Role))
}

func (k PlannedKey) stateText() string {
	if k.Public {
		return "published where the public servers show it"
	}
	return string(k.State)
}

func (k PlannedKey) where() string {
	if k.Keystore != "" {
		return fmt.Sprintf("on token `%s`, ID `%s`", k.Keystore, k.TokenID)
	}
	return "`" + k.File + "`"
}
