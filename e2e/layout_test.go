package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// importOrder says which package of this module may import which: what stands
// right of a < may import what stands left of it, and all that may be imported
// there. NONE is the empty set, and !< forbids for ever. Do not change it to
// make a build pass: move the code.
const importOrder = `
NONE < journal/event, signer/zone, keymgr/world;
signer/zone < signer;
signer/zone < xfr;
journal/event < journal/audit < journal < journal/journaltest;
journal < journal/backup < pipeline;
journal/event, signer < keymgr;
journal/audit < keymgr/file;
NONE < keymgr/secrets < keymgr/pkcs11, keymgr/kmip;
keymgr < keymgr/file, keymgr/pkcs11, keymgr/kmip, keymgr/keystoretest;
journal, signer, xfr < pipeline/store;
keymgr < keymgr/validate < pipeline/observe;
NONE < pipeline/alarm < pipeline, cli/api, cli;
keymgr < keymgr/share < keymgr/file, pipeline, cli;
journal, keymgr, signer, xfr, pipeline/store, pipeline/observe < pipeline;
pipeline, keymgr/world < pipeline/simulate < cli;
pipeline < cli/api < cli/web;
pipeline < cli/metrics < cli;
pipeline < cli/chain < cli;
NONE < cli/dane < cli;
cli/api < cli/fleet < cli/migrate < cli;
keymgr/file, keymgr/pkcs11 < cli/migrate;
NONE < cli/docs;
cli/api, cli/web, cli/docs, keymgr/file, keymgr/pkcs11, keymgr/kmip < cli;
cli, pipeline/simulate < e2e;
cli < cli/sluice, e2e;
NONE < e2e/zonegen < e2e/zonegen/cmd, e2e/bench, e2e;
NONE < e2e/manyzones < e2e/bench, e2e;
NONE < e2e/natscluster < e2e;
xfr < e2e/bench;
cli < e2e/sim;
journal !< keymgr, xfr;
`

// testSupport lists what tests of any package may import besides what the
// package itself may; nothing else imports it.
var testSupport = []string{
	"journal", // whose types journaltest speaks in
	"journal/journaltest",
	"keymgr/keystoretest",
	"keymgr/file",
	"keymgr/world",
	"e2e/natscluster",
	"e2e/zonegen",
}

// bans are direct imports that keep a package pure. A path that ends in /
// stands for all below it; under says whether sub-packages are meant too.
var bans = []struct {
	pkg    string
	under  bool
	banned []string
}{
	{"journal/event", false, []string{
		"github.com/nats-io/", "github.com/cockroachdb/pebble/",
	}},
	{"signer", true, []string{"net", "net/http", "os", "os/exec"}},
}

// fileLimit is the most lines that a Go file may have.
const fileLimit = 600

// rootEntries is the closed list of what may stand in the root, beside what
// .gitignore names there.
var rootEntries = []string{
	".ci", ".git", ".gitignore", ".golangci.yml", "LICENSE", "README.md",
	"Taskfile.yml", "cli", "e2e", "go.mod", "go.sum", "journal", "keymgr",
	"pipeline", "signer", "xfr",
}

const module = "sluice"

type listedPackage struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func TestLayout_ImportOrderHolds(t *testing.T) {
	order, err := parseOrder(importOrder)
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range order.faults(listPackages(t)) {
		t.Error(fault)
	}
}

func TestLayout_PurePackagesImportNoIO(t *testing.T) {
	for _, p := range listPackages(t) {
		name := inModule(p.ImportPath)
		for _, ban := range bans {
			if name != ban.pkg && (!ban.under || !strings.HasPrefix(name, ban.pkg+"/")) {
				continue
			}
			for _, imported := range p.Imports {
				if bannedBy(ban.banned, imported) {
					t.Errorf("%s imports %s", name, imported)
				}
			}
		}
	}
}

func TestLayout_FilesAreShort(t *testing.T) {
	generated := regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if lines := bytes.Count(text, []byte("\n")); lines > fileLimit && !generated.Match(text) {
			t.Errorf("%s has %d lines, more than %d", name, lines, fileLimit)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLayout_RootIsClosed(t *testing.T) {
	ignored, err := ignoredInRoot()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(rootEntries, e.Name()) && !slices.Contains(ignored, e.Name()) {
			t.Errorf("%q does not belong in the root", e.Name())
		}
	}
	ci, err := os.ReadDir(filepath.Join(root, ".ci"))
	if err != nil {
		t.Fatal(err)
	}
	if len(ci) != 1 || ci[0].Name() != "run" {
		t.Errorf(".ci holds %v, want run alone", ci)
	}
}

func TestLayout_ParserFindsBreaches(t *testing.T) {
	const text = "NONE < a, b; a < c; b, c < d; b !< d;"
	order, err := parseOrder(text)
	if err != nil {
		t.Fatal(err)
	}
	pkg := func(name string, imports ...string) listedPackage {
		p := listedPackage{ImportPath: module + "/" + name}
		for _, i := range imports {
			p.Imports = append(p.Imports, module+"/"+i)
		}
		return p
	}
	for _, c := range []struct {
		name string
		p    listedPackage
		bad  bool
	}{
		{"left of it", pkg("c", "a"), false},
		{"left of what is left of it", pkg("d", "a", "c"), false},
		{"itself right of it", pkg("a", "c"), true},
		{"beside it", pkg("b", "a"), true},
		{"forbidden for ever", pkg("d", "b"), true},
		{"not in the text", pkg("e"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := order.faults([]listedPackage{c.p}); (len(got) > 0) != c.bad {
				t.Errorf("faults %q, want a fault: %v", got, c.bad)
			}
		})
	}
	for _, wrong := range []string{"a b;", "a < ;", "< a;", "a < b, ;", "a < b; b < a;"} {
		if _, err := parseOrder(wrong); err == nil {
			t.Errorf("%q was accepted", wrong)
		}
	}
}

// order maps each package to all that it may import.
type order struct {
	may   map[string]map[string]bool
	never map[string]map[string]bool
}

func parseOrder(text string) (*order, error) {
	o := &order{may: map[string]map[string]bool{}, never: map[string]map[string]bool{}}
	for rule := range strings.SplitSeq(text, ";") {
		if strings.TrimSpace(rule) == "" {
			continue
		}
		into, sep := o.may, "<"
		if strings.Contains(rule, "!<") {
			into, sep = o.never, "!<"
		}
		groups := strings.Split(rule, sep)
		if len(groups) < 2 {
			return nil, fmt.Errorf("rule %q has no %s", rule, sep)
		}
		var left []string
		for i, group := range groups {
			names, err := splitNames(group)
			if err != nil {
				return nil, fmt.Errorf("rule %q: %w", rule, err)
			}
			if i > 0 {
				addAll(into, left, names)
			}
			left = names
		}
	}
	return o, o.close()
}

func splitNames(group string) ([]string, error) {
	var names []string
	for name := range strings.SplitSeq(group, ",") {
		name = strings.TrimSpace(name)
		if name == "" || strings.ContainsAny(name, " \t\n<") {
			return nil, fmt.Errorf("bad name %q", name)
		}
		names = append(names, name)
	}
	return names, nil
}

func addAll(into map[string]map[string]bool, left, right []string) {
	for _, r := range right {
		if into[r] == nil {
			into[r] = map[string]bool{}
		}
		for _, l := range left {
			if l != "NONE" {
				into[r][l] = true
			}
		}
	}
}

// close adds to each package what its allowed imports may import, until
// nothing is new; a package that may then import itself is a cycle.
func (o *order) close() error {
	for grown := true; grown; {
		grown = false
		for name, allowed := range o.may {
			for a := range allowed {
				for below := range o.may[a] {
					if !allowed[below] {
						allowed[below], grown = true, true
					}
				}
			}
			if allowed[name] {
				return fmt.Errorf("%s may import itself", name)
			}
		}
	}
	return nil
}

func (o *order) faults(packages []listedPackage) []string {
	var faults []string
	for _, p := range packages {
		name := inModule(p.ImportPath)
		if _, known := o.may[name]; !known {
			faults = append(faults, name+" does not stand in the import order")
			continue
		}
		for _, imported := range p.Imports {
			if !o.allows(name, inModule(imported)) {
				faults = append(faults, fmt.Sprintf("%s imports %s", name, inModule(imported)))
			}
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			to := inModule(imported)
			if to != name && !slices.Contains(testSupport, to) && !o.allows(name, to) {
				faults = append(faults, fmt.Sprintf("a test of %s imports %s", name, to))
			}
		}
	}
	return faults
}

// allows says whether name may import to; what is outside the module has the
// empty name and is always allowed here.
func (o *order) allows(name, to string) bool {
	return to == "" || o.may[name][to] && !o.never[name][to]
}

// inModule returns the path within the module, empty for other modules.
func inModule(importPath string) string {
	name, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	return name
}

func bannedBy(banned []string, imported string) bool {
	for _, b := range banned {
		if imported == strings.TrimSuffix(b, "/") || strings.HasSuffix(b, "/") && strings.HasPrefix(imported, b) {
			return true
		}
	}
	return false
}

func listPackages(t *testing.T) []listedPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Dir,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []listedPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		t.Fatal("go list names no package")
	}
	return packages
}

// ignoredInRoot returns the names that .gitignore takes out of the root alone.
func ignoredInRoot() ([]string, error) {
	f, err := os.Open(filepath.Join(root, ".gitignore"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if line := s.Text(); strings.HasPrefix(line, "/") {
			names = append(names, path.Base(line))
		}
	}
	return names, nil
}
