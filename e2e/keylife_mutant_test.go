package e2e

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mutants are zones whose name says which wait is missing: that before the
// first hyphen. Where blind stands behind it, the hard stop is missing as well,
// since that prevents the damage.
func mutants() []*lifeZone {
	secured := func(more ...act) []act { return append([]act{secure}, more...) }
	algorithm := roll("algorithm", "--algorithm", "ED25519")
	// The TTL that the wait is for is long beside what a busy machine needs for
	// a step.
	const long = 14 * time.Hour
	bogus := []*lifeZone{
		{label: "ipub", keyTTL: long, course: secured(roll("zsk"), settled)},
		{label: "iretzsk", dataTTL: long, course: secured(roll("zsk"), settled)},
		{label: "iretdouble-zsk", dataTTL: long, course: secured(roll("zsk", "--method", "double-signature"), settled)},
		{label: "iretdouble-csk", keyTTL: long, policy: oneKey, course: secured(roll("csk"), settled)},
		{label: "ipubc", keyTTL: long, course: secured(roll("ksk"), settled)},
		{label: "iretksk-blind", dsTTL: long, course: secured(roll("ksk"), settled)},
		{label: "iretturned-blind", dsTTL: long, course: secured(roll("ksk"), inStep(2), abort, settled)},
		{label: "ipubp-blind", dsTTL: long, byHand: true, course: secured(roll("ksk", "--method", "double-ds"), settled)},
		{label: "iretc", keyTTL: long, byHand: true, course: secured(roll("ksk", "--method", "double-ds"), settled)},
		{label: "ipubcp-blind", keyTTL: long, dsTTL: long, byHand: true, course: secured(roll("ksk", "--method", "double-rrset"), settled)},
		{label: "isig", course: secured(ttls(long, lifeKeyTTL, lifeDSTTL), hours(1), algorithm, settled)},
		{label: "iwdr", keyTTL: 8 * time.Hour, course: secured(algorithm, settled)},
		{label: "ifirst", dataTTL: long, policy: unsignedMode, course: []act{hours(6), policy(""), secure}},
		{label: "ilast-blind", dsTTL: long, course: secured(roll("insecure"), settled, policy(unsignedMode))},
	}
	for _, z := range bogus {
		z.bogus = true
	}
	// Without a wait, and with the hard stop: it holds alone.
	return append(
		bogus,
		&lifeZone{label: "iretksk-stopped", course: secured(roll("ksk"), settled)},
		&lifeZone{label: "ipubp-stopped", byHand: true, course: secured(roll("ksk", "--method", "double-ds"), settled)},
		&lifeZone{label: "iretturned-stopped", course: secured(roll("ksk"), inStep(2), abort, settled)},
	)
}

// TestRehearsal_EachWaitThatIsCutIsBogus is the same rehearsal with a program in
// which each zone lacks one wait: bogus answers have to be found in each, so
// that the rehearsal can fail.
func TestRehearsal_EachWaitThatIsCutIsBogus(t *testing.T) {
	t.Parallel()
	zones := mutants()
	waits := waitNames(t)
	for _, name := range waits {
		// What they are for shows at servers of another signer alone, and with a DS
		// that comes and goes between two looks; keymgr's models cut them.
		if name == "IretForeign" || name == "IlastUnseen" {
			continue
		}
		if !slices.ContainsFunc(zones, func(z *lifeZone) bool { return z.bogus && cutOf(z.label) == strings.ToLower(name) }) {
			t.Errorf("no zone is rehearsed without the wait %s", name)
		}
	}
	refused := rehearseLife(t, buildMutant(t, waits), zones)
	// What unbound notices of it depends on when its caches are filled. It never
	// notices the lack of Iwdr, and that of Isig only where data live longer than
	// all that follows up to the change of the DS: it wants a signature by each
	// algorithm of the DS RRset, not of the DNSKEY RRset.
	if least := 7; len(refused) < least {
		t.Errorf("the resolvers noticed %q, want %d of %d", refused, least, len(waits))
	}
}

func cutOf(label string) string {
	cut, _, _ := strings.Cut(label, "-")
	return cut
}

// waitNames is the names of all waits, from the program's text.
func waitNames(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "keymgr", "timing.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		if id, ok := lit.Type.(*ast.Ident); ok && id.Name == "wait" && len(lit.Elts) > 0 {
			if name, ok := lit.Elts[0].(*ast.BasicLit); ok {
				text, err := strconv.Unquote(name.Value)
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, text)
			}
		}
		return true
	})
	if len(names) < 10 {
		t.Fatalf("the program has the waits %q only", names)
	}
	return names
}

// buildMutant builds the program with what lets a zone's name take a wait away.
func buildMutant(t *testing.T, waits []string) string {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	put := func(name string, text []byte) {
		abs, err := filepath.Abs(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		replace[abs] = writeFile(t, filepath.Join(dir, strconv.Itoa(len(replace))+".go"), string(text))
	}
	names := map[string]string{}
	for _, w := range waits {
		names[strings.ToLower(w)] = w
	}
	put("keymgr/mutant.go", fmt.Appendf(nil, `package keymgr

import "strings"

// Mutant takes away what the name of a zone says.
func (t Timing) Mutant(zone string) Timing {
	label, _, _ := strings.Cut(zone, ".")
	cut, _, _ := strings.Cut(label, "-")
	t.cut, t.blind = %#v[cut], Blind(zone)
	return t
}

// Blind reports whether a zone has no hard stop.
func Blind(zone string) bool { return strings.Contains(zone, "-blind.") }
`, names))
	mutations := map[string]func(*ast.FuncDecl) bool{
		"known": func(fn *ast.FuncDecl) bool {
			end := len(fn.Body.List) - 1
			ret, ok := fn.Body.List[end].(*ast.ReturnStmt)
			if !ok || len(ret.Results) != 1 {
				return false
			}
			fn.Body.List = append(fn.Body.List[:end:end], parseStmts(t, "k.Timing = k.Timing.Mutant(s.Name)")[0], ret)
			return true
		},
		"mayUnsign": func(fn *ast.FuncDecl) bool {
			fn.Body.List = append(parseStmts(t, "if keymgr.Blind(s.Name) { return nil }"), fn.Body.List...)
			return true
		},
	}
	files, err := filepath.Glob(filepath.Join(root, "pipeline", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	done := map[string]bool{}
	for _, name := range files {
		if text := mutate(t, name, mutations, done); text != nil {
			put("pipeline/"+filepath.Base(name), text)
		}
	}
	if len(done) != len(mutations) {
		t.Fatalf("mutated only %v", slices.Sorted(maps.Keys(done)))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "sluice")
	cmd := exec.Command("go", "build", "-overlay", writeFile(t, filepath.Join(dir, "overlay.json"), string(overlay)), "-o", binary, "./cli/sluice")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build of the mutated program: %v\n%s", err, out)
	}
	return binary
}

// mutate is the text of a file with its functions mutated; nil where it has
// none of them.
func mutate(t *testing.T, name string, mutations map[string]func(*ast.FuncDecl) bool, done map[string]bool) []byte {
	t.Helper()
	if strings.HasSuffix(name, "_test.go") {
		return nil
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	changed := false
	for _, d := range file.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && mutations[fn.Name.Name] != nil && mutations[fn.Name.Name](fn) {
			changed, done[fn.Name.Name] = true, true
		}
	}
	if !changed {
		return nil
	}
	var text strings.Builder
	if err := format.Node(&text, set, file); err != nil {
		t.Fatal(err)
	}
	return []byte(text.String())
}

// parseStmts is statements as syntax, without positions.
func parseStmts(t *testing.T, text string) []ast.Stmt {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "", "package p\nfunc f() {\n"+text+"\n}\n", 0)
	if err != nil {
		t.Fatal(err)
	}
	return file.Decls[0].(*ast.FuncDecl).Body.List
}
