package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sluice/pipeline"
)

// catalogRoutes are about catalog zones.
func catalogRoutes() []Route {
	status := document(pipeline.CatalogStatus{}, "how the catalog is")
	return tagged(
		"catalogs",
		get("/catalogs", "listCatalogs", RoleViewer, "The catalog zones, by name.",
			document([]pipeline.CatalogStatus{}, "catalogs"), (*server).listCatalogs),
		change("POST", "/catalogs", "addCatalog", RoleOperator, "Follow a catalog zone, or produce one.",
			pipeline.NewCatalog{}, created(pipeline.CatalogStatus{}, "how the catalog is"), (*server).addCatalog),
		get("/catalogs/{catalog}", "getCatalog", RoleViewer, "How a catalog is.", status, (*server).showCatalog),
		change("PATCH", "/catalogs/{catalog}", "changeCatalog", RoleOperator, "Change how a catalog is followed, or what it lists.",
			pipeline.CatalogChange{}, status, (*server).changeCatalog),
		change("DELETE", "/catalogs/{catalog}", "removeCatalog", RoleAdmin, "End a catalog: its members are removed, each after that was announced, or stay.",
			nil, done(), (*server).removeCatalog, yesNo("keep_members", "the members stay as zones on their own")),
		change("POST", "/catalogs/{catalog}/approve", "approveCatalog", RoleOperator, "Let the removals through that are held.",
			Reason{}, status, (*server).approveCatalog),
		get("/catalogs/{catalog}/members", "listMembers", RoleViewer, "The members of a catalog, by name.",
			paged([]pipeline.CatalogMember{}, "members"), (*server).listMembers, pageParams()...),
	)
}

func (s *server) listCatalogs(w http.ResponseWriter, r *http.Request) error {
	list, err := s.engine.Catalogs(r.Context())
	return replyList(w, http.StatusOK, list, err)
}

func (s *server) addCatalog(w http.ResponseWriter, r *http.Request) error {
	var n pipeline.NewCatalog
	if err := readBody(r, &n); err != nil {
		return err
	}
	st, err := s.engine.AddCatalog(r.Context(), actorOf(r.Context()), n)
	if err != nil {
		return err
	}
	return reply(w, http.StatusCreated, st)
}

func (s *server) showCatalog(w http.ResponseWriter, r *http.Request) error {
	st, err := s.engine.Catalog(r.Context(), r.PathValue("catalog"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, st)
}

func (s *server) changeCatalog(w http.ResponseWriter, r *http.Request) error {
	var c pipeline.CatalogChange
	if err := readBody(r, &c); err != nil {
		return err
	}
	st, err := s.engine.SetCatalog(r.Context(), actorOf(r.Context()), r.PathValue("catalog"), c)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, st)
}

func (s *server) removeCatalog(w http.ResponseWriter, r *http.Request) error {
	keep, err := boolParam(r, "keep_members")
	if err != nil {
		return err
	}
	if err := s.engine.RemoveCatalog(r.Context(), actorOf(r.Context()), r.PathValue("catalog"), keep); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) approveCatalog(w http.ResponseWriter, r *http.Request) error {
	var why Reason
	if err := readBody(r, &why); err != nil {
		return err
	}
	st, err := s.engine.ApproveCatalog(r.Context(), actorOf(r.Context()), r.PathValue("catalog"), why.Reason)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, st)
}

func (s *server) listMembers(w http.ResponseWriter, r *http.Request) error {
	p, err := pageOf(r)
	if err != nil {
		return err
	}
	list, err := s.engine.CatalogMembers(r.Context(), r.PathValue("catalog"))
	if err != nil {
		return err
	}
	at, found := slices.BinarySearchFunc(list, p.after, func(m pipeline.CatalogMember, name string) int { return strings.Compare(m.Zone, name) })
	if found {
		at++
	}
	return replyList(w, http.StatusOK, cut(w, r, p, list[at:], func(m pipeline.CatalogMember) string { return m.Zone }), nil)
}

func catalogPath(name string, more ...string) string {
	return "/catalogs/" + strings.Join(append([]string{url.PathEscape(name)}, more...), "/")
}

// Catalogs lists the catalog zones.
func (c *Client) Catalogs(ctx context.Context) ([]pipeline.CatalogStatus, error) {
	return fetch[[]pipeline.CatalogStatus](ctx, c, http.MethodGet, "/catalogs", nil, nil)
}

// Catalog tells how a catalog is.
func (c *Client) Catalog(ctx context.Context, name string) (pipeline.CatalogStatus, error) {
	return fetch[pipeline.CatalogStatus](ctx, c, http.MethodGet, catalogPath(name), nil, nil)
}

// AddCatalog follows a catalog zone, or produces one.
func (c *Client) AddCatalog(ctx context.Context, n pipeline.NewCatalog) (pipeline.CatalogStatus, error) {
	return fetch[pipeline.CatalogStatus](ctx, c, http.MethodPost, "/catalogs", nil, n)
}

// SetCatalog changes how a catalog is followed, or what it lists.
func (c *Client) SetCatalog(ctx context.Context, name string, ch pipeline.CatalogChange) (pipeline.CatalogStatus, error) {
	return fetch[pipeline.CatalogStatus](ctx, c, http.MethodPatch, catalogPath(name), nil, ch)
}

// RemoveCatalog ends a catalog; with keep its members stay.
func (c *Client) RemoveCatalog(ctx context.Context, name string, keep bool) error {
	return c.act(ctx, http.MethodDelete, catalogPath(name), url.Values{"keep_members": {strconv.FormatBool(keep)}})
}

// ApproveCatalog lets the removals through that are held.
func (c *Client) ApproveCatalog(ctx context.Context, name, reason string) (pipeline.CatalogStatus, error) {
	return fetch[pipeline.CatalogStatus](ctx, c, http.MethodPost, catalogPath(name, "approve"), nil, Reason{Reason: reason})
}

// CatalogMembers lists the members of a catalog.
func (c *Client) CatalogMembers(ctx context.Context, name string) ([]pipeline.CatalogMember, error) {
	return fetch[[]pipeline.CatalogMember](ctx, c, http.MethodGet, catalogPath(name, "members"), nil, nil)
}
