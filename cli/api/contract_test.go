package api

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"sluice/pipeline"
)

// operation is one operation as the OpenAPI document has it.
type operation struct {
	method, path string
	id           string
	role         Role
	changes      bool
	params       map[string]bool // of the query
	body         string          // where the schema of the request's document is; "" for none
	answers      map[string]map[string]string
	at           string // where it is in the document
}

// contract is the OpenAPI document, ready to check against.
type contract struct {
	compiler *jsonschema.Compiler
	mu       sync.Mutex
	schemas  map[string]*jsonschema.Schema // guarded by mu, by place
	ops      []operation
	mux      *http.ServeMux
	byRoute  map[string]*operation // by the mux's pattern
	seen     sync.Map              // operation ids that answered with success
}

// theContract is read once.
var theContract = sync.OnceValues(readContract)

func contractOf(t testing.TB) *contract {
	t.Helper()
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func readContract() (*contract, error) {
	raw, err := jsonschema.UnmarshalJSON(strings.NewReader(OpenAPI()))
	if err != nil {
		return nil, err
	}
	doc := raw.(map[string]any)
	// Clients have to bear members that they do not know. Here there are none:
	// the document must not lack one.
	for _, s := range below(doc, "components", "schemas") {
		schema := s.(map[string]any)
		if _, open := schema["additionalProperties"]; schema["type"] == "object" && !open {
			schema["additionalProperties"] = false
		}
	}
	c := &contract{
		compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{},
		mux: http.NewServeMux(), byRoute: map[string]*operation{},
	}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource("openapi.json", doc); err != nil {
		return nil, err
	}
	for path, item := range below(doc, "paths") {
		for method, op := range item.(map[string]any) {
			c.ops = append(c.ops, readOperation(strings.ToUpper(method), path, op.(map[string]any)))
		}
	}
	slices.SortFunc(c.ops, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	for i, op := range c.ops {
		pattern := op.method + " " + Prefix + op.path
		c.mux.Handle(pattern, http.NotFoundHandler())
		c.byRoute[pattern] = &c.ops[i]
	}
	return c, nil
}

func below(v map[string]any, names ...string) map[string]any {
	for _, name := range names {
		v, _ = v[name].(map[string]any)
	}
	return v
}

var pointer = strings.NewReplacer("~", "~0", "/", "~1")

func readOperation(method, path string, op map[string]any) operation {
	at := "/paths/" + pointer.Replace(path) + "/" + strings.ToLower(method)
	o := operation{
		method: method, path: path, at: at, id: op["operationId"].(string), role: Role(op["x-role"].(string)),
		changes: op["x-changes"].(bool), params: map[string]bool{}, answers: map[string]map[string]string{},
	}
	params, _ := op["parameters"].([]any)
	for _, p := range params {
		if p := p.(map[string]any); p["in"] == "query" {
			o.params[p["name"].(string)] = true
		}
	}
	if op["requestBody"] != nil {
		o.body = at + "/requestBody/content/" + pointer.Replace(mediaJSON) + "/schema"
	}
	for status, answer := range below(op, "responses") {
		forms := map[string]string{}
		if _, shared := answer.(map[string]any)["$ref"]; shared {
			forms[mediaProblem] = "/components/schemas/Problem"
		}
		for media := range below(answer.(map[string]any), "content") {
			forms[media] = at + "/responses/" + status + "/content/" + pointer.Replace(media) + "/schema"
		}
		o.answers[status] = forms
	}
	return o
}

// check validates a JSON text against the schema at a place of the document.
func (c *contract) check(place string, text []byte) error {
	c.mu.Lock()
	s, ok := c.schemas[place]
	if !ok {
		var err error
		if s, err = c.compiler.Compile("openapi.json#" + (&url.URL{Path: place}).EscapedPath()); err != nil {
			c.mu.Unlock()
			return err
		}
		c.schemas[place] = s
	}
	c.mu.Unlock()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// operationOf finds what a request asks for, nil where there is no such route.
func (c *contract) operationOf(r *http.Request) *operation {
	if r.Method == http.MethodHead {
		r = r.Clone(r.Context())
		r.Method = http.MethodGet
	}
	_, pattern := c.mux.Handler(r)
	return c.byRoute[pattern]
}

// checking is a transport that fails the test where an answer, or a request
// that was taken, is not as the OpenAPI document says.
type checking struct {
	t    testing.TB
	next http.RoundTripper
}

func (c checking) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := c.next.RoundTrip(r)
	if err == nil {
		c.judge(r, res)
	}
	return res, err
}

func (c checking) CloseIdleConnections() {
	if t, ok := c.next.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

func (c checking) judge(r *http.Request, res *http.Response) {
	doc := contractOf(c.t)
	op := doc.operationOf(r)
	if op == nil {
		if res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusMethodNotAllowed {
			c.t.Errorf("%s %s: no such operation, but status %d", r.Method, r.URL, res.StatusCode)
		}
		return
	}
	forms, ok := op.answers[strconv.Itoa(res.StatusCode)]
	if !ok {
		c.t.Errorf("%s: status %d is not in the document", op.id, res.StatusCode)
		return
	}
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")) // "" where there is none
	place, ok := forms[media]
	if !ok && (media != "" || len(forms) > 0) {
		c.t.Errorf("%s: status %d has the Content-Type %q, the document %v", op.id, res.StatusCode, media, forms)
		return
	}
	if res.StatusCode < http.StatusBadRequest {
		doc.seen.Store(op.id, true)
		c.judgeRequest(doc, op, r)
	}
	if r.Method != http.MethodHead {
		res.Body = &checkedBody{ReadCloser: res.Body, media: media, check: func(text []byte) {
			if err := doc.check(place, text); err != nil {
				c.t.Errorf("%s: status %d: the answer is not as the document says: %v\n%s", op.id, res.StatusCode, err, text)
			}
		}}
	}
}

// judgeRequest looks at a request that was taken.
func (c checking) judgeRequest(doc *contract, op *operation, r *http.Request) {
	for name := range r.URL.Query() {
		if !op.params[name] {
			c.t.Errorf("%s took the parameter %s, which is not in the document", op.id, name)
		}
	}
	if op.body == "" || r.GetBody == nil {
		return
	}
	body, err := r.GetBody()
	if err != nil {
		c.t.Error(err)
		return
	}
	text, err := io.ReadAll(body)
	if err == nil {
		err = doc.check(op.body, text)
	}
	if err != nil {
		c.t.Errorf("%s took a request that is not as the document says: %v\n%s", op.id, err, text)
	}
}

// checkedBody checks what is read of an answer.
type checkedBody struct {
	io.ReadCloser
	media  string
	read   []byte
	broken bool
	check  func([]byte)
}

func (b *checkedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.broken = b.broken || err != nil && err != io.EOF
	switch b.media {
	case mediaJSON, mediaProblem:
		b.read = append(b.read, p[:n]...)
	case mediaLines, mediaEvents:
		b.read = append(b.read, p[:n]...)
		for {
			line, rest, whole := bytes.Cut(b.read, []byte("\n"))
			if !whole {
				break
			}
			b.line(line)
			b.read = rest
		}
	}
	return n, err
}

func (b *checkedBody) line(line []byte) {
	if b.media == mediaEvents {
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		if !ok || bytes.Contains(data, []byte(`"status":`)) && !bytes.Contains(data, []byte(`"seq":`)) {
			return
		}
		line = data
	}
	b.check(line)
}

func (b *checkedBody) Close() error {
	if (b.media == mediaJSON || b.media == mediaProblem) && !b.broken {
		if _, err := io.Copy(io.Discard, b); err == nil {
			b.check(b.read)
		}
	}
	return b.ReadCloser.Close()
}

// fill puts values into a path's parameters.
func fill(path string) string {
	return Prefix + strings.NewReplacer(
		"{zone}", "example.com", "{stage}", "loaded", "{key}", "0123456789abcdef", "{policy}", "default",
		"{keystore}", "files", "{worker}", "w1", "{token}", "t1", "{catalog}", "catalog.example",
	).Replace(path)
}

// TestRoles_NoRouteAnswersWithoutItsRole asks each operation of the document as
// each role, with a parameter that none has: who may is told so, who may not is
// refused before.
func TestRoles_NoRouteAnswersWithoutItsRole(t *testing.T) {
	h := Handler(new(pipeline.Engine), nil) // no request gets further than to be refused
	ask := func(method, path string, id *Identity) (int, Problem) {
		r := httptest.NewRequestWithContext(t.Context(), method, path+"?nonsense=1", nil)
		if id != nil {
			r = r.WithContext(WithIdentity(r.Context(), *id))
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Errorf("%s %s: %v", method, path, err)
		}
		if id == nil && w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s %s: a refusal does not say how to prove who one is", method, path)
		}
		return w.Code, p
	}
	for _, op := range contractOf(t).ops {
		path := fill(op.path)
		if strings.Contains(path, "{") {
			t.Errorf("%s: say in fill what stands for its parameters", op.path)
		}
		methods := []string{op.method}
		if op.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		for _, method := range methods {
			if status, _ := ask(method, path, nil); status != http.StatusUnauthorized {
				t.Errorf("%s %s without an identity: status %d", method, path, status)
			}
			if status, _ := ask(method, path, &Identity{Name: "ada"}); status != http.StatusForbidden {
				t.Errorf("%s %s without a role: status %d", method, path, status)
			}
			for _, role := range Roles() {
				status, p := ask(method, path, &Identity{Name: "ada", Roles: []Role{role}})
				may := role == op.role || role == RoleAdmin || op.role == RoleViewer
				if may && (status != http.StatusBadRequest || !strings.Contains(p.Detail, "nonsense")) {
					t.Errorf("%s %s as %s: status %d, %s", method, path, role, status, p.Detail)
				}
				if !may && (status != http.StatusForbidden || !strings.Contains(p.Detail, "role "+string(op.role))) {
					t.Errorf("%s %s as %s: status %d, %s", method, path, role, status, p.Detail)
				}
			}
		}
	}
}

// The roles of routes are few enough to be written down twice.
func TestRoles_SecretsAndAccessAreForAdmins(t *testing.T) {
	for _, r := range Routes() {
		want := RoleViewer
		switch {
		case strings.HasPrefix(r.ID, "export") && r.ID != "exportAudit", r.ID == "backupJournal":
			want = RoleAdmin
		case r.Tag == "audit" && r.ID != "getAuditHead":
			want = RoleAuditor
		case r.Tag == "access":
			want = RoleAdmin
		case r.Method == http.MethodGet, r.ID == "getOutlook":
		case r.Tag == "secrets", r.Tag == "workers", r.Tag == "daemon" && r.ID != "reloadConfig", r.ID == "removeZone", r.ID == "recordBackup",
			r.ID == "removeCatalog", r.ID == "putPolicy", r.ID == "removePolicy": // policies have commands run
			want = RoleAdmin
		case r.ID == "approve", r.ID == "reject", r.ID == "recallApproval":
			want = RoleReviewer
		default:
			want = RoleOperator
		}
		if r.Role != want {
			t.Errorf("%s asks for %s, want %s", r.ID, r.Role, want)
		}
	}
}

func TestRoutes_AreToldApartAndDescribed(t *testing.T) {
	ids := map[string]bool{}
	for _, r := range Routes() {
		if ids[r.ID] || r.ID == "" {
			t.Errorf("%s: two routes have the ID %q", r.Pattern(), r.ID)
		}
		ids[r.ID] = true
		if r.Tag == "" || !strings.HasSuffix(r.Summary, ".") || r.Answer.Status == 0 || r.Answer.Text == "" {
			t.Errorf("%s is not described: %+v", r.Pattern(), r)
		}
		if (r.Answer.Media == "") != (r.Answer.Form == FormNothing) {
			t.Errorf("%s: form %s with media type %q", r.ID, r.Answer.Form, r.Answer.Media)
		}
		for _, p := range r.Query {
			if p.Text == "" || p.Name == "" {
				t.Errorf("%s: parameter %+v is not described", r.ID, p)
			}
		}
	}
}
