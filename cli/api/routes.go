package api

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// Route is one operation of the API. The mux, the check of roles, and the
// OpenAPI document are made of it, and the manual is checked against it.
type Route struct {
	Method  string
	Path    string // below Prefix; parameters stand in braces
	ID      string // the operation's name in the OpenAPI document
	Tag     string // what it is about: zones, keys, journal ...
	Role    Role   // what its caller needs
	Changes bool   // it changes something that stays, or makes the daemon work
	Summary string // one sentence
	Query   []Param
	Headers []Param      // of the request, that the route looks at
	Body    reflect.Type // of the request's document; nil where there is none
	Answer  Answer

	handle method
}

// method is one route's handler. An error that it returns is sent as a problem,
// so it must not have written anything by then.
type method func(*server, http.ResponseWriter, *http.Request) error

// Param is a parameter of a request.
type Param struct {
	Name   string
	Type   ParamType
	Text   string // what it means
	Many   bool   // it may stand several times
	Needed bool
	Values []string // all that it may be; none: any of its type
}

// ParamType is what the text of a parameter has to be.
type ParamType string

// The types of parameters.
const (
	TextParam   ParamType = "text"
	BoolParam   ParamType = "bool"
	NumberParam ParamType = "number" // not negative
	LimitParam  ParamType = "limit"  // 1 to MaxLimit
	SerialParam ParamType = "serial" // 32 bits
	TimeParam   ParamType = "time"   // RFC 3339
)

// Form is how an answer's body is built.
type Form string

// The forms of answers.
const (
	FormDocument Form = "document" // one JSON document of the answer's type
	FormNothing  Form = "nothing"
	FormFrames   Form = "frames" // lines of Frame, whose items are of the answer's type
	FormEvents   Form = "events" // server-sent events, whose data is of the answer's type
	FormFile     Form = "file"   // of the answer's media type
)

// Answer is what a route answers where all is well.
type Answer struct {
	Status int
	Form   Form
	Media  string       // the Content-Type; "" where there is no body
	Type   reflect.Type // of the document, or of each item
	Text   string       // what it is
	Paged  bool         // with the parameter limit it is a page, and Link leads to the next
	Whole  bool         // the trailer Sluice-Outcome says whether it is complete
}

// media types of answers.
const (
	mediaJSON   = "application/json"
	mediaLines  = "application/x-ndjson"
	mediaEvents = "text/event-stream"

	mediaProblem = "application/problem+json"
)

// Routes are all routes, in the order of the manual.
func Routes() []Route {
	return slices.Concat(
		daemonRoutes(), statusRoutes(), zoneRoutes(), liveRoutes(), reviewRoutes(), versionRoutes(), historyRoutes(),
		catalogRoutes(), keyRoutes(), rolloverRoutes(), backupRoutes(), policyRoutes(), secretRoutes(),
		journalRoutes(), auditRoutes(), clusterRoutes(), accessRoutes(),
	)
}

// Pattern is the route as http.ServeMux names it, and as Request.Pattern has it
// once Handler has served the request.
func (r Route) Pattern() string { return r.Method + " " + Prefix + r.Path }

// PathParams are the names of the parameters in the path.
func (r Route) PathParams() []string {
	var names []string
	for part := range strings.SplitSeq(r.Path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}

// query finds a parameter of the query.
func (r Route) query(name string) (Param, bool) {
	i := slices.IndexFunc(r.Query, func(p Param) bool { return p.Name == name })
	if i < 0 {
		return Param{}, false
	}
	return r.Query[i], true
}

// PathParam tells what a parameter of a path is.
func PathParam(name string) Param {
	p := Param{Name: name, Type: TextParam, Needed: true}
	switch name {
	case "zone":
		p.Text = "name of the zone, as one percent-encoded segment; the root zone is %2E"
	case "stage":
		p.Text, p.Values = "which review", []string{"loaded", "signed"}
	case "key":
		p.Text = "ID of the key; of a TSIG key its name"
	default:
		p.Text = "name of the " + name
	}
	return p
}

// The constructors below keep the tables of routes readable.

func get(path, id string, role Role, summary string, answer Answer, handle method, query ...Param) Route {
	return Route{
		Method: http.MethodGet, Path: path, ID: id, Role: role, Summary: summary, Answer: answer, handle: handle, Query: query,
	}
}

func change(verb, path, id string, role Role, summary string, body any, answer Answer, handle method, query ...Param) Route {
	r := Route{
		Method: verb, Path: path, ID: id, Role: role, Summary: summary, Answer: answer, handle: handle, Query: query, Changes: true,
	}
	if body != nil {
		r.Body = reflect.TypeOf(body)
	}
	return r
}

// planning is a route that is asked like a change and changes nothing.
func planning(r Route) Route {
	r.Changes = false
	return r
}

// tagged sets the tag of all routes of a table.
func tagged(tag string, routes ...Route) []Route {
	for i := range routes {
		routes[i].Tag = tag
	}
	return routes
}

func document(v any, text string) Answer {
	return Answer{Status: http.StatusOK, Form: FormDocument, Media: mediaJSON, Type: reflect.TypeOf(v), Text: text}
}

func created(v any, text string) Answer {
	a := document(v, text)
	a.Status = http.StatusCreated
	return a
}

func paged(v any, text string) Answer {
	a := document(v, text)
	a.Paged = true
	return a
}

// lines are a stream of frames; each item is such a v.
func lines(v any, text string) Answer {
	return Answer{Status: http.StatusOK, Form: FormFrames, Media: mediaLines, Type: reflect.TypeOf(v), Text: text}
}

func liveEvents() Answer {
	return Answer{
		Status: http.StatusOK, Form: FormEvents, Media: mediaEvents, Type: reflect.TypeFor[Event](),
		Text: "events as they come; the ids are sequences of the journal",
	}
}

func whole(media, text string) Answer {
	return Answer{Status: http.StatusOK, Form: FormFile, Media: media, Text: text, Whole: true}
}

func nothing(status int, text string) Answer {
	return Answer{Status: status, Form: FormNothing, Text: text}
}

func done() Answer { return nothing(http.StatusNoContent, "done") }

func askedFor() Answer {
	return nothing(http.StatusAccepted, "asked for: the zone's await tells when it is done")
}

func yesNo(name, text string) Param  { return Param{Name: name, Type: BoolParam, Text: text} }
func text(name, text string) Param   { return Param{Name: name, Type: TextParam, Text: text} }
func moment(name, text string) Param { return Param{Name: name, Type: TimeParam, Text: text} }

func pageParams() []Param {
	return []Param{
		{Name: "limit", Type: LimitParam, Text: "at most so many; absent: all"},
		{Name: "cursor", Type: TextParam, Text: "where the page begins, from the Link of the one before"},
	}
}
