package api

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/journal/event"
)

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(append(append(name, ':'), value...))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// schemas makes JSON schemas of Go types as encoding/json writes them.
type schemas struct {
	t       *testing.T
	sources map[string]source // by import path
	names   map[string]reflect.Type
	made    map[string]object
	request map[string]bool // those of requests, which refuse unknown fields
}

func newSchemas(t *testing.T) *schemas {
	return &schemas{
		t: t, sources: map[string]source{}, names: map[string]reflect.Type{}, made: map[string]object{}, request: map[string]bool{},
	}
}

// ref refers to the schema of a named type, and makes it where it is not there
// yet; other types are described in place.
func (g *schemas) ref(t reflect.Type, request bool) object {
	if t.Kind() == reflect.Pointer {
		return g.ref(t.Elem(), request)
	}
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{{"type", "string"}, {"format", "date-time"}, {"examples", []string{"2026-03-29T01:00:00Z"}}}
	case t == reflect.TypeFor[event.Hash]():
		return object{{"type", "string"}, {"pattern", "^[0-9a-f]{64}$"}}
	case t == reflect.TypeFor[json.RawMessage]():
		return object{{"type", "object"}}
	case t == reflect.TypeFor[[]byte]():
		return object{{"type", "string"}, {"contentEncoding", "base64"}}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return object{{"type", "string"}}
	case t.Implements(reflect.TypeFor[json.Marshaler]()):
		g.t.Fatalf("%s writes JSON of its own: say here what", t)
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return object{{"type", "array"}, {"items", g.ref(t.Elem(), request)}}
	case reflect.Map:
		return object{{"type", "object"}, {"additionalProperties", g.ref(t.Elem(), request)}}
	case reflect.Bool:
		return object{{"type", "boolean"}}
	case reflect.Float64:
		return object{{"type", "number"}}
	case reflect.Int, reflect.Int64:
		return object{{"type", "integer"}, {"format", "int64"}}
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return object{{"type", "integer"}, {"minimum", 0}, {"maximum", uint64(1)<<t.Bits() - 1}}
	case reflect.Uint, reflect.Uint64:
		return object{{"type", "integer"}, {"minimum", 0}}
	case reflect.String:
		values := g.source(t.PkgPath()).values[t.Name()]
		if len(values) == 0 {
			return object{{"type", "string"}}
		}
		return g.named(t, request, func() object { return object{{"type", "string"}, {"enum", values}} })
	case reflect.Struct:
		if t.Name() == "" {
			return g.structure(t, request)
		}
		return g.named(t, request, func() object { return g.structure(t, request) })
	default:
		g.t.Fatalf("type %s: no schema is known", t)
		return nil
	}
}

// wireTypes are the names of types whose own say too little outside of their
// packages.
func wireTypes() map[string]string {
	return map[string]string{
		"keymgr.Role": "KeyRole", "keymgr.State": "KeyState", "keymgr.Kind": "RolloverKind", "keymgr.Method": "RolloverMethod",
		"keymgr.Phase": "RolloverPhase", "keymgr.Missing": "MissingServer", "pipeline.Role": "WorkerRole", "journal.Access": "JournalAccess",
		"journal.Fault": "JournalFault", "keymgr.Proof": "KeyProof", "event.DS": "SeenDS", "api.Role": "APIRole",
	}
}

// named keeps the schema of a type under its name.
func (g *schemas) named(t reflect.Type, request bool, schema func() object) object {
	name := t.Name()
	if other := wireTypes()[path.Base(t.PkgPath())+"."+name]; other != "" {
		name = other
	}
	if first, taken := g.names[name]; taken && first != t {
		g.t.Fatalf("%s and %s want the name %s", first, t, name)
	}
	if _, there := g.names[name]; !there {
		g.names[name] = t
		g.request[name] = request && t.Kind() == reflect.Struct
		made := schema()
		if text := g.source(t.PkgPath()).docs[t.Name()]; text != "" {
			made = append(object{{"description", text}}, made...)
		}
		g.made[name] = made
	}
	if g.request[name] != request && t.Kind() == reflect.Struct {
		g.t.Fatalf("%s is in requests and in answers: one of them has to have a type of its own", t)
	}
	return object{{"$ref", "#/components/schemas/" + name}}
}

// field is one member of an object, as encoding/json writes it.
type field struct {
	name     string
	optional bool
	typ      reflect.Type
	owner    reflect.Type
	goName   string
}

// fieldsOf lists the members that encoding/json writes of a struct.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	depth := map[string]int{}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || f.Anonymous && name == "" {
			continue
		}
		owner := t
		if len(f.Index) > 1 {
			in := t.FieldByIndex(f.Index[:len(f.Index)-1])
			if in.Tag.Get("json") != "" {
				continue // it is below a member, not beside it
			}
			owner = in.Type
		}
		if name == "" {
			name = f.Name
		}
		if at, there := depth[name]; there && at <= len(f.Index) {
			continue
		}
		depth[name] = len(f.Index)
		fields = slices.DeleteFunc(fields, func(have field) bool { return have.name == name })
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		fields = append(fields, field{name, optional, f.Type, owner, f.Name})
	}
	return fields
}

func (g *schemas) structure(t reflect.Type, request bool) object {
	properties, required := object{}, []string{}
	for _, f := range fieldsOf(t) {
		schema := append(g.ref(f.typ, request), shape(f.name, f.typ)...)
		if text := cmp.Or(g.source(f.owner.PkgPath()).docs[f.owner.Name()+"."+f.goName], commonText(f.name)); text != "" {
			schema = append(object{{"description", text}}, schema...)
		}
		properties = append(properties, member{f.name, schema})
		if !f.optional {
			required = append(required, f.name)
		}
	}
	out := object{{"type", "object"}, {"properties", properties}}
	if len(required) > 0 {
		out = append(out, member{"required", required})
	}
	if request {
		out = append(out, member{"additionalProperties", false})
	}
	return out
}

// shape is how the text of members looks that have the same form everywhere.
func shape(name string, t reflect.Type) object {
	if t.Kind() != reflect.String {
		return nil
	}
	switch name {
	case "content_digest", "signed_digest":
		return object{{"pattern", "^[0-9a-f]{64}$"}, {"examples", []string{strings.Repeat("0123456789abcdef", 4)}}}
	case "key_id":
		return object{{"pattern", "^[0-9a-f]{16}$"}, {"examples", []string{"0123456789abcdef"}}}
	}
	return nil
}

// components are the schemas by name.
func (g *schemas) components() object {
	names := make([]string, 0, len(g.made))
	for name := range g.made {
		names = append(names, name)
	}
	slices.Sort(names)
	out := object{}
	for _, name := range names {
		out = append(out, member{name, g.made[name]})
	}
	return out
}

// source is what the source of a package says of its types.
type source struct {
	docs   map[string]string   // by Type and Type.Field
	values map[string][]string // the constants of string types
}

// source reads the source of a package of this module.
func (g *schemas) source(importPath string) source {
	below, ours := strings.CutPrefix(importPath, "sluice/")
	if !ours {
		return source{}
	}
	if s, there := g.sources[importPath]; there {
		return s
	}
	s := source{docs: map[string]string{}, values: map[string][]string{}}
	g.sources[importPath] = s
	files, err := filepath.Glob(filepath.Join("..", "..", below, "*.go"))
	if err != nil || len(files) == 0 {
		g.t.Fatalf("package %s: %d files, %v", importPath, len(files), err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			g.t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if d, ok := decl.(*ast.GenDecl); ok {
				s.read(d)
			}
		}
	}
	return s
}

func (s source) read(d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			doc := spec.Doc
			if doc == nil {
				doc = d.Doc
			}
			s.readType(spec, doc)
		case *ast.ValueSpec:
			typ, ok := spec.Type.(*ast.Ident)
			if d.Tok != token.CONST || !ok {
				continue
			}
			for _, v := range spec.Values {
				if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if text, err := strconv.Unquote(lit.Value); err == nil {
						s.values[typ.Name] = append(s.values[typ.Name], text)
					}
				}
			}
		}
	}
}

// readType takes the comments of a type and of its fields. The names of other
// fields in them become those of JSON.
func (s source) readType(spec *ast.TypeSpec, doc *ast.CommentGroup) {
	typ, ok := spec.Type.(*ast.StructType)
	wire := map[string]string{}
	if ok {
		for _, f := range typ.Fields.List {
			if name := wireName(f); name != "" && len(f.Names) == 1 {
				wire[f.Names[0].Name] = name
			}
		}
	}
	s.docs[spec.Name.Name] = plain(doc, wire)
	if !ok {
		return
	}
	shared := map[string]string{} // what the comment of one field says of others, too
	for _, f := range typ.Fields.List {
		text := strings.Trim(plain(f.Doc, wire)+"; "+plain(f.Comment, wire), "; ")
		for _, other := range wire {
			if strings.Contains(text, "`"+other+"`") {
				shared[other] = text
			}
		}
		for _, name := range f.Names {
			s.docs[spec.Name.Name+"."+name.Name] = text
		}
	}
	for name, other := range wire {
		if at := spec.Name.Name + "." + name; s.docs[at] == "" {
			s.docs[at] = shared[other]
		}
	}
}

// wireName is the name of a field in JSON; "" where the tag has none.
func wireName(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	tag, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
	return strings.Trim(name, "-")
}

var words = regexp.MustCompile(`\b[A-Z][A-Za-z0-9]*\b`)

// plain is a comment as one line.
func plain(doc *ast.CommentGroup, wire map[string]string) string {
	text := strings.Join(strings.Fields(doc.Text()), " ")
	text = words.ReplaceAllStringFunc(text, func(word string) string {
		if name, ok := wire[word]; ok {
			return "`" + name + "`"
		}
		return word
	})
	if text = strings.ReplaceAll(text, " nil ", " absent "); !strings.HasSuffix(text, "...") {
		text = strings.TrimSuffix(text, ".")
	}
	return text
}
