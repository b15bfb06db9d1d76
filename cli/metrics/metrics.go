package metrics

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice/pipeline"
	"sluice/xfr"
)

const (
	// scrapeTime is how long one scrape may take.
	scrapeTime = 30 * time.Second
	// maxScrapes bounds the scrapes under way.
	maxScrapes = 4
)

// Config is what metrics are made with.
type Config struct {
	// Measure tells how the process and its zones are, at each scrape; needed.
	Measure func(ctx context.Context) pipeline.Measurement
	// Published is what the publication listeners have done; nil where there are
	// none.
	Published func() xfr.Stats
	// Zones is ZonesAuto, ZonesAll or ZonesNone; "" is ZonesAuto.
	Zones string
	// ZonesLimit is how many zones ZonesAuto tells of by themselves; 0 is
	// DefaultZonesLimit.
	ZonesLimit int
	// Logger takes what goes wrong; nil drops it.
	Logger *slog.Logger
}

// Metrics tells how a process is. It is safe for concurrent use.
type Metrics struct {
	cfg      Config
	shown    atomic.Pointer[shown]
	descs    map[string]described
	registry *prometheus.Registry
	handler  http.Handler
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// described is a family with what the library knows of it.
type described struct {
	family
	desc *prometheus.Desc
}

// New makes the metrics of a process, with a registry of their own.
func New(cfg Config) *Metrics {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Metrics{cfg: cfg, descs: map[string]described{}, registry: prometheus.NewRegistry()}
	m.SetZones(cfg.Zones, cfg.ZonesLimit)
	for _, f := range slices.Concat(zoneFamilies(), fleetFamilies(), processFamilies()) {
		m.descs[f.name] = described{f, prometheus.NewDesc(prefix+f.name, f.help, f.labels, nil)}
	}
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "api_requests_total", Help: "Requests to the API by method, route and status.",
	}, []string{"method", "route", "status"})
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: prefix + "api_request_seconds", Help: "How long it took until the answer to a request began, by method and route.",
		Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10},
	}, []string{"method", "route"})
	m.registry.MustRegister(m, m.requests, m.seconds,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: errorLog{cfg.Logger}, ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes, Timeout: scrapeTime, EnableOpenMetrics: true,
	})
	return m
}

// shown is which zones have series of their own.
type shown struct {
	zones string
	limit int
}

// SetZones replaces Zones and ZonesLimit of Config from the next scrape on.
func (m *Metrics) SetZones(zones string, limit int) {
	m.shown.Store(&shown{zones: zones, limit: cmp.Or(limit, DefaultZonesLimit)})
}

// errorLog takes what the library says of a scrape that failed.
type errorLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l errorLog) Println(v ...any) {
	l.log.Warn("metrics not whole", "error", strings.TrimSpace(fmt.Sprintln(v...)))
}

// Handler answers scrapes in the text formats of Prometheus and OpenMetrics. Who
// may scrape is for others to say.
func (m *Metrics) Handler() http.Handler { return m.handler }

// Instrument counts the requests that next answers. Of next's own mux it takes
// the route; what matches none is "none", so that callers make no series.
func (m *Metrics) Instrument(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		watched := &watchedWriter{ResponseWriter: w, began: began}
		next.ServeHTTP(watched, r)
		if watched.status == 0 {
			watched.WriteHeader(http.StatusOK)
		}
		_, route, ok := strings.Cut(r.Pattern, " ")
		method := r.Method
		if !ok {
			route, method = "none", "none"
		}
		m.requests.WithLabelValues(method, route, strconv.Itoa(watched.status)).Inc()
		m.seconds.WithLabelValues(method, route).Observe(watched.took.Seconds())
	})
}

// watchedWriter notes with what, and when, an answer begins.
type watchedWriter struct {
	http.ResponseWriter
	began  time.Time
	status int
	took   time.Duration
}

// WriteHeader implements http.ResponseWriter.
func (w *watchedWriter) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status, w.took = status, time.Since(w.began)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *watchedWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status, w.took = http.StatusOK, time.Since(w.began)
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach what is below.
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush sends what was written, where that can be done.
func (w *watchedWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		to <- d.desc
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	now := m.cfg.Measure(ctx)
	s := &scrape{m: m, to: to}
	s.process(now)
	s.work(now)
	s.peers(now)
	s.journal(now)
	s.fleet(now)
	chosen := m.chosen(now.Zones, now.Clock.Now)
	s.set("zones_untold", float64(len(now.Zones)-len(chosen)))
	for _, z := range chosen {
		s.zone(z)
	}
}

// scrape is what one scrape sends.
type scrape struct {
	m  *Metrics
	to chan<- prometheus.Metric
}

// set sends one value; a family that is not in the table is an error of the
// scrape.
func (s *scrape) set(name string, value float64, labels ...string) {
	d, ok := s.m.descs[name]
	if !ok {
		s.to <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(fmt.Errorf("metric %s is not in the table", name)), fmt.Errorf("metric %s", name))
		return
	}
	metric, err := prometheus.NewConstMetric(d.desc, d.kind, value, labels...)
	if err != nil {
		metric = prometheus.NewInvalidMetric(d.desc, err)
	}
	s.to <- metric
}

// at sends a time; the zero time is none.
func (s *scrape) at(name string, t time.Time, labels ...string) {
	if !t.IsZero() {
		s.set(name, float64(t.UnixMilli())/1000, labels...)
	}
}

// is sends 1 or 0.
func (s *scrape) is(name string, yes bool, labels ...string) {
	value := 0.0
	if yes {
		value = 1
	}
	s.set(name, value, labels...)
}

// count sends a number.
func (s *scrape) count(name string, n uint64, labels ...string) {
	s.set(name, float64(n), labels...)
}

// histogram sends a histogram.
func (s *scrape) histogram(name string, h pipeline.Histogram, labels ...string) {
	d := s.m.descs[name]
	metric, err := prometheus.NewConstHistogram(d.desc, h.Count, h.Sum, h.Buckets, labels...)
	if err != nil {
		metric = prometheus.NewInvalidMetric(d.desc, err)
	}
	s.to <- metric
}

// counts sends how often things happened, and how long they took where seconds
// names a family. What has not happened yet is 0 for all of kinds and outcomes,
// so that a rate can be taken of the first time. One kind "" is no label.
func (s *scrape) counts(name, seconds string, list []pipeline.Count, kinds, outcomes []string) {
	send := func(c pipeline.Count) {
		labels := []string{c.Kind, c.Outcome}
		switch {
		case c.Kind == "":
			labels = labels[1:]
		case c.Outcome == "":
			labels = labels[:1]
		}
		s.count(name, c.N, labels...)
		if seconds != "" {
			s.set(seconds, c.Seconds, labels...)
		}
	}
	for _, c := range list {
		send(c)
	}
	for _, kind := range kinds {
		for _, outcome := range outcomes {
			if !slices.ContainsFunc(list, func(c pipeline.Count) bool { return c.Kind == kind && c.Outcome == outcome }) {
				send(pipeline.Count{Kind: kind, Outcome: outcome})
			}
		}
	}
}

// goVersion is what the program was built with.
func goVersion() string { return runtime.Version() }
