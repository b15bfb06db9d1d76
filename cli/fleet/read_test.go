package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// folder writes files into a new folder.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, dir, name, text)
	}
	return dir
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const policyText = "version = \"v1\"\n"

func TestRead_WhatWriteWrote(t *testing.T) {
	want := Fleet{
		Policies: map[string][]byte{"web": []byte(policyText)},
		Zones: []Zone{
			{
				Name: "a.example", Source: "/srv/a.zone", Policy: "web", SerialFloor: "auto",
				Keys: []Key{{Role: "ksk", File: "keys/Ka.private"}, {Role: "zsk", File: "keys/Ka.key", Keystore: "hsm", ID: "a1"}, {File: "keys/b.key", Public: true}},
			},
			{Name: "b.example", Source: "192.0.2.1^tsig"},
		},
	}
	dir := t.TempDir()
	if err := want.Write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Check(false); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Fleet{}, "Dir", "Digest"), cmpopts.IgnoreFields(Zone{}, "File", "Line")); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
	if err := want.Write(dir); err == nil || !strings.Contains(err.Error(), "not replaced") {
		t.Errorf("written over what was there: %v", err)
	}
}

func TestRead_FaultsNameFileAndLine(t *testing.T) {
	const head = "version = \"v1\"\n"
	zone := func(name string) string {
		return "[[zone]]\nname = \"" + name + "\"\nsource = \"/z\"\n"
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"unknown key":    {map[string]string{"zones.toml": head + zone("a.") + "polcy = \"x\"\n"}, "zones.toml, line 5: unknown key zone.polcy"},
		"not TOML":       {map[string]string{"zones/x.toml": head + "zone ="}, "x.toml, line 2"},
		"wrong type":     {map[string]string{"zones.toml": head + zone("a.") + "[[zone]]\nname = 7\n" + zone("b.")}, "zones.toml, line 5: the zone that begins here"},
		"a plain value":  {map[string]string{"zones.toml": head + "zone = 7\n"}, "zones.toml: a value of the wrong type"},
		"no version":     {map[string]string{"zones.toml": zone("a.")}, `want version = "v1"`},
		"no name":        {map[string]string{"zones.toml": head + zone("a..b")}, "zones.toml, line 2: zone"},
		"twice":          {map[string]string{"zones.toml": head + zone("a."), "zones/b.toml": head + "\n" + zone("A")}, "b.toml, line 3: zone A stands in"},
		"another file":   {map[string]string{"zones/b.yaml": ""}, "b.yaml: only files NAME.toml"},
		"another folder": {map[string]string{"policies/more/x.toml": ""}, "more: only files NAME.toml"},
	} {
		dir := folder(t, c.files)
		if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	dir := folder(t, map[string]string{"zones/README.md": "words", "policies/.keep": "", "zones.toml": head})
	if _, err := Read(dir); err != nil {
		t.Error(err)
	}
}

func TestCheck_FaultsNameWhatIsWrong(t *testing.T) {
	const head = "version = \"v1\"\n"
	zone := func(rest string) map[string]string {
		return map[string]string{"zones.toml": head + "[[zone]]\nname = \"a.\"\n" + rest}
	}
	for name, c := range map[string]struct {
		files  map[string]string
		remote bool
		want   string
	}{
		"nothing":           {nil, false, "a fleet of nothing"},
		"no source":         {zone(""), false, "line 2: zone a.: it has no source"},
		"no such file":      {zone("source = \"a.zone\"\n"), false, "neither a file of the folder nor a server"},
		"remote file":       {zone("source = \"a.zone\"\n"), true, "the daemon runs on another machine"},
		"bad server":        {zone("source = \"192.0.2.1:99999\"\n"), false, "192.0.2.1:99999"},
		"bad policy name":   {zone("source = \"/z\"\npolicy = \"a/b\"\n"), false, `policy name "a/b"`},
		"bad floor":         {zone("source = \"/z\"\nserial-floor = \"x\"\n"), false, `serial-floor "x"`},
		"role":              {zone("source = \"/z\"\n[[zone.key]]\nrole = \"key\"\nfile = \"/k\"\n"), false, `role "key"`},
		"role of a foreign": {zone("source = \"/z\"\n[[zone.key]]\nrole = \"ksk\"\npublic = true\nfile = \"/k\"\n"), false, "has no role here"},
		"half a token":      {zone("source = \"/z\"\n[[zone.key]]\nrole = \"ksk\"\nkeystore = \"t\"\nfile = \"/k\"\n"), false, "belong together"},
		"no hex":            {zone("source = \"/z\"\n[[zone.key]]\nrole = \"ksk\"\nkeystore = \"t\"\nid = \"x\"\nfile = \"/k\"\n"), false, "CKA_ID in hex"},
		"remote key":        {zone("source = \"/z\"\n[[zone.key]]\nrole = \"ksk\"\nfile = \"k\"\n"), true, "from / on"},
		"policy":            {map[string]string{"policies/web.toml": "version = \"v1\"\n[signer]\nmode = \"x\"\n"}, false, `web.toml: policy "web", line 3`},
		"policy's name":     {map[string]string{"policies/we b.toml": policyText}, false, "want 1 to 64 letters"},
	} {
		f, err := Read(folder(t, c.files))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := f.Check(c.remote); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestRead_DigestFollowsEveryFile(t *testing.T) {
	files := map[string]string{"zones.toml": "version = \"v1\"\n", "zones/a.toml": "version = \"v1\"\n", "policies/web.toml": policyText}
	digest := func() string {
		f, err := Read(folder(t, files))
		if err != nil {
			t.Fatal(err)
		}
		return f.Digest
	}
	first := digest()
	if again := digest(); again != first {
		t.Error("the same files in another folder have another digest")
	}
	for name, text := range files {
		files[name] = text + "#\n"
		if digest() == first {
			t.Errorf("%s is not in the digest", name)
		}
		files[name] = text
	}
}

func TestReason_NamesTheCommit(t *testing.T) {
	const hash = "3f2a9c1b00000000000000000000000000000000"
	for want, got := range map[string]string{
		"apply of commit 3f2a9c1b0000: a second provider":                         Commit{ID: hash}.Reason("/srv/f", "a  second\nprovider"),
		"apply of commit 3f2a9c1b0000 with changes that are not committed":        Commit{ID: hash, Dirty: true}.Reason("/srv/f", ""),
		"apply of commit v1.2-release-of-a-very-long-name-that-is-no-hash-at-all": Commit{ID: "v1.2-release-of-a-very-long-name-that-is-no-hash-at-all"}.Reason("/srv/f", ""),
		"apply of /srv/f": Commit{}.Reason("/srv/f", ""),
	} {
		if got != want || !applied(got) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := (Commit{}).Reason("/f", strings.Repeat("x", 5000)); len(got) > 2000 {
		t.Errorf("a reason of %d bytes", len(got))
	}
}

// What is read never panics, and what was accepted can be written and read again.
func FuzzParseZones(f *testing.F) {
	f.Add([]byte("version = \"v1\"\n[[zone]]\nname = \"a.example\"\nsource = \"192.0.2.1:53^k\"\n[[zone.key]]\nrole = \"ksk\"\nfile = \"k\"\n"))
	f.Add([]byte("version = \"v1\"\nzone = [{name = \".\", source = \"/x\"}]\n"))
	f.Add([]byte("[[ \"zone\" ]]\nname=1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		zones, err := parseZones("zones.toml", text)
		if err != nil {
			return
		}
		for _, z := range zones {
			z.check("/nowhere", true)
			if canonical(z.Name) != canonical(canonical(z.Name)) {
				t.Errorf("%q has two canonical names", z.Name)
			}
		}
		dir := t.TempDir()
		if len(twice(zones)) > 0 {
			return
		}
		if err := (Fleet{Zones: zones}).Write(dir); err != nil {
			t.Fatal(err)
		}
		again, err := Read(dir)
		if err != nil || len(again.Zones) != len(zones) {
			t.Errorf("%d zones became %d, %v", len(zones), len(again.Zones), err)
		}
	})
}
