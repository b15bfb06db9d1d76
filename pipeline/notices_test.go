package pipeline

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Whoever tells a notice gives it a code.
func TestNotices_EachHasACode(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if name, isName := literalType(lit, ok); !isName || name != "Notice" {
				return true
			}
			keys := map[string]bool{}
			for _, e := range lit.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok {
					keys[kv.Key.(*ast.Ident).Name] = true
				}
			}
			if found++; keys["Severity"] && !keys["Code"] {
				t.Errorf("%s: a notice without a code", fset.Position(lit.Pos()))
			}
			return true
		})
	}
	if found < 40 {
		t.Errorf("%d notices found: is the test still right?", found)
	}
}

func literalType(lit *ast.CompositeLit, ok bool) (string, bool) {
	if !ok {
		return "", false
	}
	id, isName := lit.Type.(*ast.Ident)
	if !isName {
		return "", false
	}
	return id.Name, true
}

func TestNotices_CodesAreKebabCaseAndUnlike(t *testing.T) {
	codes := NoticeCodes()
	form := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	for i, code := range codes {
		if !form.MatchString(string(code)) || i > 0 && codes[i-1] == code {
			t.Errorf("code %q", code)
		}
	}
	for _, code := range processNotices() {
		if slices.Contains(zoneNotices(), code) || !ProcessNotice(code) {
			t.Errorf("%s is about a zone and the process", code)
		}
	}
}

func TestWorse_OrdersSeverities(t *testing.T) {
	order := []string{"", severityInfo, severityWarning, severityAlarm}
	for i, a := range order {
		for j, b := range order {
			if Worse(a, b) != (i > j) {
				t.Errorf("worse(%q, %q) is %t", a, b, Worse(a, b))
			}
		}
	}
}
