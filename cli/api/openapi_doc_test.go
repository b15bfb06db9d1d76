package api

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"sluice/pipeline"
)

var update = flag.Bool("update", false, "write openapi.json anew")

// TestOpenAPI_IsThatOfTheRoutes makes the document anew. Where it differs the
// contract with clients has changed: look at the difference, then run it with
// -update.
func TestOpenAPI_IsThatOfTheRoutes(t *testing.T) {
	raw, err := marshal(describeAPI(t))
	if err != nil {
		t.Fatal(err)
	}
	var indented strings.Builder
	enc := json.NewEncoder(&indented)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(json.RawMessage(raw)); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("openapi.json", []byte(indented.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(strings.Split(indented.String(), "\n"), strings.Split(OpenAPI(), "\n")); diff != "" {
		t.Errorf("routes or wire types have changed; if that is meant: go test ./cli/api -run OpenAPI -update\n%s", diff)
	}
}

func TestOpenAPI_IsVersion31AndValid(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData([]byte(OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("version %s", doc.OpenAPI)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
}

// describeAPI makes the OpenAPI document.
func describeAPI(t *testing.T) object {
	g := newSchemas(t)
	paths, tags := object{}, object{}
	for _, r := range Routes() {
		i := slices.IndexFunc(paths, func(m member) bool { return m.name == r.Path })
		if i < 0 {
			i = len(paths)
			paths = append(paths, member{r.Path, object{}})
		}
		paths[i].value = append(paths[i].value.(object), member{strings.ToLower(r.Method), describeRoute(g, r)})
		if !slices.ContainsFunc(tags, func(m member) bool { return m.name == r.Tag }) {
			tags = append(tags, member{r.Tag, nil})
		}
	}
	var tagList []object
	for _, m := range tags {
		tagList = append(tagList, object{{"name", m.name}, {"description", tagText(t, m.name)}})
	}
	problem := g.ref(reflect.TypeFor[Problem](), false)
	responses := object{}
	for _, row := range problemTexts() {
		responses = append(responses, member{"Problem" + strconv.Itoa(row.status), object{
			{"description", row.text},
			{"content", object{{mediaProblem, object{{"schema", problem}}}}},
		}})
	}
	return object{
		{"openapi", "3.1.1"},
		{"info", object{
			{"title", "Sluice"},
			{"summary", "The interface of a hidden DNSSEC signer"},
			{"description", aboutAPI},
			{"license", object{{"name", "BSD-3-Clause"}, {"identifier", "BSD-3-Clause"}}},
			{"version", "1"},
		}},
		{"servers", []object{{{"url", Prefix}}}},
		{"security", []object{{{"token", []string{}}}}},
		{"tags", tagList},
		{"paths", paths},
		{"components", object{
			{"securitySchemes", object{{"token", object{
				{"type", "http"},
				{"scheme", "bearer"},
				{"description", "a token that `sluice token add` made; on the unix socket none is needed"},
			}}}},
			{"responses", responses},
			{"schemas", g.components()},
		}},
	}
}

const aboutAPI = "Everything that the commands do. Paths in bodies are those of the daemon's machine. " +
	"x-role is the role that a caller needs, x-changes says that a call changes something. " +
	"What GET answers, HEAD answers without the body. " +
	"Unknown parameters and unknown members of a body are refused. " +
	"Answers may get further members: clients ignore those that they do not know."

func tagText(t *testing.T, tag string) string {
	text, ok := map[string]string{
		"daemon":    "The process and its clock",
		"zones":     "Zones, and work on them",
		"reviews":   "Verdicts, and ways out of a halt",
		"versions":  "What a zone was: dumps, differences, checks, rollback",
		"events":    "History and live events",
		"catalogs":  "Catalog zones (RFC 9432)",
		"keys":      "DNSSEC keys",
		"rollovers": "The exchange of keys",
		"policies":  "Policies",
		"secrets":   "TSIG keys and keystores",
		"journal":   "The journal: sizes, retention, verification, copies",
		"audit":     "Checkpoints and exports",
		"workers":   "Processes that share the journal",
		"access":    "Tokens and roles",
	}[tag]
	if !ok {
		t.Errorf("tag %s: say here what it is", tag)
	}
	return text
}

func describeRoute(g *schemas, r Route) object {
	op := object{
		{"operationId", r.ID},
		{"tags", []string{r.Tag}},
		{"summary", strings.TrimSuffix(r.Summary, ".")},
		{"x-role", r.Role},
		{"x-changes", r.Changes},
	}
	var params []object
	for _, name := range r.PathParams() {
		params = append(params, describeParam("path", PathParam(name)))
	}
	for _, p := range r.Query {
		params = append(params, describeParam("query", p))
	}
	for _, p := range r.Headers {
		params = append(params, describeParam("header", p))
	}
	if len(params) > 0 {
		op = append(op, member{"parameters", params})
	}
	if r.Body != nil {
		op = append(op, member{"requestBody", object{
			{"required", true}, {"content", object{{mediaJSON, object{{"schema", g.ref(r.Body, true)}}}}},
		}})
	}
	responses := object{{strconv.Itoa(r.Answer.Status), describeAnswer(g, r.Answer)}}
	for _, status := range routeProblems(r) {
		responses = append(responses, member{strconv.Itoa(status), object{{"$ref", "#/components/responses/Problem" + strconv.Itoa(status)}}})
	}
	return append(op, member{"responses", responses})
}

func describeParam(in string, p Param) object {
	schema := object{}
	switch p.Type {
	case BoolParam:
		schema = object{{"type", "boolean"}}
	case NumberParam:
		schema = object{{"type", "integer"}, {"minimum", 0}}
	case LimitParam:
		schema = object{{"type", "integer"}, {"minimum", 1}, {"maximum", MaxLimit}}
	case SerialParam:
		schema = object{{"type", "integer"}, {"minimum", 0}, {"maximum", uint64(1)<<32 - 1}}
	case TimeParam:
		schema = object{{"type", "string"}, {"format", "date-time"}}
	case TextParam:
		schema = object{{"type", "string"}}
		if len(p.Values) > 0 {
			schema = append(schema, member{"enum", p.Values})
		}
	}
	if p.Many {
		schema = object{{"type", "array"}, {"items", schema}}
	}
	out := object{{"name", p.Name}, {"in", in}, {"description", p.Text}}
	if p.Needed {
		out = append(out, member{"required", true})
	}
	return append(out, member{"schema", schema})
}

func describeAnswer(g *schemas, a Answer) object {
	out := object{{"description", a.Text}}
	if a.Whole {
		out[0].value = a.Text + "; the trailer " + outcomeTrailer + " says `ok`, or what went wrong"
	}
	if a.Paged {
		out = append(out, member{"headers", object{{"Link", object{
			{"description", "with `limit`, where more come: leads to the next page, rel=\"next\" (RFC 8288)"},
			{"schema", object{{"type", "string"}}},
		}}}})
	}
	var schema object
	switch a.Form {
	case FormNothing:
		return out
	case FormDocument:
		schema = g.ref(a.Type, false)
	case FormFrames:
		schema = object{
			{"description", "each line; the last one has `done` or `error`, else the answer was cut off"},
			{"type", "object"},
			{"minProperties", 1},
			{"maxProperties", 1},
			{"properties", object{
				{"item", g.ref(a.Type, false)},
				{"progress", g.ref(reflect.TypeFor[pipeline.Progress](), false)},
				{"error", g.ref(reflect.TypeFor[Problem](), false)},
				{"done", object{{"type", "boolean"}, {"const", true}}},
			}},
		}
	case FormEvents:
		schema = append(object{{"description", "the data of each event; an event called `problem` has a problem, and ends the stream"}},
			g.ref(a.Type, false)...)
	case FormFile:
		if schema = (object{{"type", "string"}}); a.Media == mediaJSON {
			schema = object{{"type", "object"}}
		}
	}
	return append(out, member{"content", object{{a.Media, object{{"schema", schema}}}}})
}

// routeProblems are the statuses of the problems that a route may answer.
func routeProblems(r Route) []int {
	statuses := []int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusConflict,
	}
	if r.Body != nil {
		statuses = append(statuses, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if r.Body != nil || r.ID == "reloadConfig" || len(r.Query) > 0 || len(r.PathParams()) > 0 {
		statuses = append(statuses, http.StatusUnprocessableEntity)
	}
	statuses = append(statuses, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable)
	if r.Changes {
		statuses = append(statuses, http.StatusInsufficientStorage)
	}
	return statuses
}

type problemText struct {
	status int
	text   string
}

// problemTexts are all statuses of problems, and what they mean.
func problemTexts() []problemText {
	return []problemText{
		{http.StatusBadRequest, "the request cannot be read"},
		{http.StatusUnauthorized, "it is not known who asks"},
		{http.StatusForbidden, "who asks lacks the role, which `detail` names"},
		{http.StatusNotFound, "no such path, zone, policy, instance"},
		{http.StatusMethodNotAllowed, "the path does not know the method"},
		{http.StatusConflict, "not possible in this state"},
		{http.StatusRequestEntityTooLarge, "the body is larger than 1 MiB"},
		{http.StatusUnsupportedMediaType, "the body is not said to be JSON"},
		{http.StatusUnprocessableEntity, "the request is wrong in itself"},
		{http.StatusTooManyRequests, "too many requests; `Retry-After` says how long to wait"},
		{http.StatusInternalServerError, "it failed"},
		{http.StatusServiceUnavailable, "the daemon stops, or it took too long"},
		{http.StatusInsufficientStorage, "no space is left for the journal"},
	}
}
