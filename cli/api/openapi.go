package api

import (
	_ "embed"
	"io"
	"net/http"
)

// The document is made of the routes, the wire types and their comments:
// go test ./cli/api -run OpenAPI -update
//
//go:embed openapi.json
var openAPI string

// OpenAPI is the OpenAPI 3.1 document of the API, in JSON. It has the role of
// each operation in x-role, and in x-changes whether it changes something.
func OpenAPI() string { return openAPI }

func (s *server) openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", mediaJSON)
	_, _ = io.WriteString(w, openAPI) // a peer that left cannot be told
	return nil
}
