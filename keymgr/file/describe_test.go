package file

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/keymgr"
)

func TestDescribe_ReadsAllButThePrivatePart(t *testing.T) {
	const base = "Kexample.com.+013+35174"
	s := newStore(t)
	private := copyLife(t, base, func(_, text string) string { return text })
	whole, err := s.Look(t.Context(), private, "example.com", "")
	if err != nil {
		t.Fatal(err)
	}
	public := copyLife(t, base, func(suffix, text string) string {
		if suffix == ".private" {
			return ""
		}
		return text
	})
	public = strings.TrimSuffix(public, ".private") + ".key"
	k, err := s.Describe(t.Context(), public, "example.com", "")
	if err != nil {
		t.Fatal(err)
	}
	if k.Keystore != "" || k.Reference != "" {
		t.Errorf("it is said to be in %q, %q", k.Keystore, k.Reference)
	}
	whole.Keystore, whole.Reference = "", ""
	if diff := cmp.Diff(whole, k); diff != "" {
		t.Errorf("with the private part (-) and without (+):\n%s", diff)
	}
}

func TestDescribe_RefusesWhatDoesNotFit(t *testing.T) {
	const base = "Kexample.com.+013+35174"
	s := newStore(t)
	dir := strings.TrimSuffix(copyLife(t, base, func(suffix, text string) string {
		if suffix == ".state" {
			return strings.Replace(text, "Algorithm: 13", "Algorithm: 8", 1)
		}
		return text
	}), base+".private")
	for _, row := range []struct {
		name, path, zone string
		role             keymgr.Role
		want             string
	}{
		{"the private file", filepath.Join(lifeFolder, base+".private"), "example.com", "", "want the .key file"},
		{"another zone", filepath.Join(lifeFolder, base+".key"), "example.net", "", "belongs to zone example.com"},
		{"another role", filepath.Join(lifeFolder, base+".key"), "example.com", keymgr.KSK, "its flags make it a zsk, not a ksk"},
		{"no file", filepath.Join(lifeFolder, "K.key"), "example.com", "", "no such file"},
		{"notes of another key", dir + base + ".key", "example.com", "", "belongs to another key"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := s.Describe(t.Context(), row.path, row.zone, row.role); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q in it", err, row.want)
			}
		})
	}
}
