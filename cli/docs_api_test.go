package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/cli/api"
)

// requestRow is a row of the table of requests: what is asked, and the role.
var requestRow = regexp.MustCompile("(?m)^\\| (`(?:GET|POST|PUT|PATCH|DELETE) .*?`) \\| (\\w+) \\| .+ \\|$")

// The page names each route with its role, and no other.
func TestAPIPage_NamesEveryRoute(t *testing.T) {
	told := map[string]string{}
	for _, row := range requestRow.FindAllStringSubmatch(page(t, "api"), -1) {
		for request := range strings.SplitSeq(row[1], "`, `") {
			request, query, _ := strings.Cut(strings.Trim(request, "`"), "?")
			told[request] = row[2]
			method, path, _ := strings.Cut(request, " ")
			i := slices.IndexFunc(api.Routes(), func(r api.Route) bool { return r.Method == method && r.Path == path })
			if i < 0 {
				t.Errorf("%s: there is no such route", request)
				continue
			}
			for name := range strings.SplitSeq(query, "&") {
				name, _, _ = strings.Cut(name, "=")
				if name != "" && !slices.ContainsFunc(api.Routes()[i].Query, func(p api.Param) bool { return p.Name == name }) {
					t.Errorf("%s: there is no parameter %s", request, name)
				}
			}
		}
	}
	text := page(t, "api")
	for _, r := range api.Routes() {
		request := r.Method + " " + r.Path
		if role := told[request]; role != string(r.Role) {
			t.Errorf("%s: the page says role %q, want %s", request, role, r.Role)
		}
		for _, p := range r.Query {
			if !strings.Contains(text, p.Name+"=") && !strings.Contains(text, "`"+p.Name+"`") {
				t.Errorf("%s: parameter %s is not on the page", request, p.Name)
			}
		}
	}
}

// The page has each status of a problem that the OpenAPI document has.
func TestAPIPage_NamesEveryStatus(t *testing.T) {
	doc := openAPI(t)
	text := page(t, "api")
	for name, response := range doc.Components.Responses {
		row := fmt.Sprintf("| %s | %s |", strings.TrimPrefix(name, "Problem"), response.Description)
		if !strings.Contains(text, row) {
			t.Errorf("the page has no row %s", row)
		}
	}
}

// Every member of every document is on the page of JSON fields, or with the
// requests.
func TestJSONPage_NamesEveryMemberOfTheOpenAPIDocument(t *testing.T) {
	text := page(t, "json") + page(t, "api")
	doc := openAPI(t)
	for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas)) {
		for property := range doc.Components.Schemas[name].Properties {
			if !strings.Contains(text, "`"+property+"`") {
				t.Errorf("%s: member %s is on no page", name, property)
			}
		}
	}
}

type openAPIDocument struct {
	Components struct {
		Responses map[string]struct{ Description string }
		Schemas   map[string]struct{ Properties map[string]any }
	}
}

func openAPI(t *testing.T) openAPIDocument {
	t.Helper()
	var doc openAPIDocument
	if err := json.Unmarshal([]byte(api.OpenAPI()), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}
