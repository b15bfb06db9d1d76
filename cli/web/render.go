package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"sluice/cli/api"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static
var staticFiles embed.FS

const staticPrefix = "/static/"

// asset is a file that browsers keep: its address changes with its content.
type asset struct {
	hash, contentType string
	plain, packed     []byte
}

type assets map[string]asset

// readAssets reads the embedded files once.
func readAssets() (assets, error) {
	out := assets{}
	types := map[string]string{
		".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
	}
	err := fs.WalkDir(staticFiles, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		plain, err := staticFiles.ReadFile(name)
		if err != nil {
			return err
		}
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, err = z.Write(plain)
		if err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		sum := sha256.Sum256(plain)
		out[path.Base(name)] = asset{
			hash: hex.EncodeToString(sum[:8]), contentType: types[path.Ext(name)], plain: plain, packed: packed.Bytes(),
		}
		return nil
	})
	return out, err
}

// url is where a file is, for as long as its content stays.
func (a assets) url(name string) (string, error) {
	file, ok := a[name]
	if !ok {
		return "", fmt.Errorf("no file %q", name)
	}
	return staticPrefix + file.hash + "/" + name, nil
}

// static sends a file. An address with another hash is that of another
// program's file.
func (s *site) static(w http.ResponseWriter, r *http.Request) {
	file, ok := s.assets[r.PathValue("file")]
	if !ok || file.hash != r.PathValue("hash") {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", file.contentType)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Vary", "Accept-Encoding")
	body := file.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = file.packed
	}
	_, _ = w.Write(body) // a browser that left cannot be told
}

// readPages parses each page with what all have.
func readPages(a assets) (map[string]*template.Template, error) {
	base, err := template.New("layout.html").Funcs(functions(a)).
		ParseFS(templateFiles, "templates/layout.html", "templates/parts.html", "templates/zonehead.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, err
	}
	out := map[string]*template.Template{}
	for _, name := range names {
		page := strings.TrimSuffix(path.Base(name), ".html")
		if page == "layout" || page == "parts" || page == "zonehead" {
			continue
		}
		set, err := base.Clone()
		if err != nil {
			return nil, err
		}
		if out[page], err = set.ParseFS(templateFiles, name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// shell is what every page has around it.
type shell struct {
	Title   string
	Section string // the part of the site that the page belongs to
	Who     *api.Identity
	Now     time.Time // by the daemon's clock
	// Rehearsal: that clock is simulated.
	Rehearsal bool
	Alarms    []string
	Flash     *flash
	Live      string // where the page's events come from; "" for nowhere
	Body      any
}

// Can reports whether who is logged in has a role.
func (s shell) Can(role string) bool { return s.Who != nil && s.Who.Can(api.Role(role)) }

// render shows a page to who is logged in.
func (v *visit) render(status int, name, title string, body any) {
	sh := shell{Title: title, Section: v.section(), Who: &v.id, Live: v.liveURL(), Body: body}
	if v.r.Header.Get(liveHeader) == "" {
		sh.Flash = v.session.heard()
	}
	v.around(&sh)
	if status >= http.StatusBadRequest {
		sh.Live = ""
	}
	v.write(v.w, v.r, status, name, sh)
}

// around tells how the daemon is, which every page shows.
func (v *visit) around(sh *shell) {
	health, err := v.client.Health(v.ctx())
	if err != nil {
		sh.Alarms = []string{err.Error()}
	}
	if v.r.URL.Path != "/" { // there they stand among what needs a person
		sh.Alarms = append(sh.Alarms, health.Alarms...)
	}
	sh.Now = time.Now()
	if clock, err := v.client.Clock(v.ctx()); err == nil {
		sh.Now, sh.Rehearsal = clock.Now, clock.Rehearsal
	}
}

// section is the part of the site that a path belongs to.
func (v *visit) section() string {
	first, _, _ := strings.Cut(strings.TrimPrefix(v.r.URL.Path, "/"), "/")
	if first == "" {
		return "zones"
	}
	return first
}

// liveURL is where the events of what a page shows come from.
func (v *visit) liveURL() string {
	if name := v.r.PathValue("zone"); name != "" {
		return zoneURL(zoneArg(name)) + "/live"
	}
	return "/live"
}

// write sends a page as a whole, or the error that it could not be made.
func (s *site) write(w http.ResponseWriter, r *http.Request, status int, name string, sh shell) {
	if sh.Now.IsZero() {
		sh.Now = time.Now()
	}
	var b bytes.Buffer
	if err := s.pages[name].ExecuteTemplate(&b, "layout.html", sh); err != nil {
		s.cfg.Logger.ErrorContext(r.Context(), "page not made", "page", name, "error", err)
		http.Error(w, "The page could not be made; the log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a browser that left cannot be told
}
