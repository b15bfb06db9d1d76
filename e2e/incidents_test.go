package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// incidentTests are the tests of the tree that are named after an outage, with
// the file of each.
func incidentTests(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "TestIncident_") {
				found[fn.Name.Name] = name
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Each outage in the list of keymgr's design has a test that is named after it,
// and each test that the list names is there.
func TestIncidents_EachOfTheListHasItsTest(t *testing.T) {
	_, list, ok := strings.Cut(readFile(t, filepath.Join(root, "keymgr", "DESIGN.md")), "\n## Outages\n")
	if !ok {
		t.Fatal("the design of keymgr lists no outages")
	}
	list, _, _ = strings.Cut(list, "\n## ")
	names := regexp.MustCompile("`(TestIncident_[A-Za-z0-9_]+)`")
	there := incidentTests(t)
	rows := 0
	for line := range strings.Lines(list) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| outage |") {
			continue
		}
		rows++
		tests := names.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 {
			t.Errorf("no test is named for this outage: %s", line)
		}
		for _, m := range tests {
			if there[m[1]] == "" {
				t.Errorf("%s is listed, but is in no test file", m[1])
			}
		}
	}
	if rows < 17 {
		t.Errorf("only %d outages are listed", rows)
	}
}
