package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"sluice/cli/api"
	"sluice/cli/metrics"
	"sluice/pipeline"
	"sluice/pipeline/observe"
)

// metricsConfig is what Prometheus is told.
type metricsConfig struct {
	Zones      string `toml:"zones"`
	ZonesLimit int    `toml:"zones-limit"`
}

// check finds values that cannot work; nil where there are none.
func (c metricsConfig) check() *badValue {
	if !slices.Contains([]string{metrics.ZonesAuto, metrics.ZonesAll, metrics.ZonesNone}, c.Zones) {
		return &badValue{key: "metrics.zones", text: fmt.Sprintf(`zones = %q: want "auto" (of many zones those alone that need a person), "all" (each zone by itself) or "none" (sums alone)`, c.Zones)}
	}
	if c.ZonesLimit < 1 {
		return &badValue{key: "metrics.zones-limit", text: fmt.Sprintf("zones-limit = %d: want at least 1", c.ZonesLimit)}
	}
	return nil
}

// proberConfig is which validating resolvers are asked about zones.
type proberConfig struct {
	Resolvers []string `toml:"resolvers"`
	Interval  duration `toml:"interval"`
	Names     []string `toml:"names"`
}

// defaultProber asks nobody.
func defaultProber() proberConfig {
	return proberConfig{Resolvers: []string{}, Interval: duration(15 * time.Minute), Names: []string{"@ SOA"}}
}

// leastProbing is how often a zone may be asked about.
const leastProbing = time.Second

// maxProbed bounds the resolvers, and the names, that are asked about each zone.
const maxProbed = 16

// check finds values that cannot work; nil where there are none.
func (c proberConfig) check() *badValue {
	_, bad := c.prober(nil)
	return bad
}

// prober is the config as the engine takes it; ask asks a resolver.
func (c proberConfig) prober(ask func(context.Context, observe.Probe) observe.Validated) (pipeline.Prober, *badValue) {
	p := pipeline.Prober{Interval: time.Duration(c.Interval), Ask: ask}
	switch {
	case p.Interval < leastProbing:
		return p, &badValue{key: "prober.interval", text: "interval: want at least " + leastProbing.String()}
	case len(c.Resolvers) > maxProbed:
		return p, &badValue{key: "prober.resolvers", text: fmt.Sprintf("resolvers: %d are more than %d", len(c.Resolvers), maxProbed)}
	case len(c.Names) > maxProbed:
		return p, &badValue{key: "prober.names", text: fmt.Sprintf("names: %d are more than %d", len(c.Names), maxProbed)}
	case len(c.Names) == 0:
		return p, &badValue{key: "prober.names", text: `names is empty: want at least one, such as "@ SOA"`}
	}
	known := map[netip.AddrPort]bool{}
	for _, text := range c.Resolvers {
		at, err := parseResolver(text)
		if err == nil && known[at] {
			err = fmt.Errorf("resolver %q is named twice", text)
		}
		if err != nil {
			return p, &badValue{key: "prober.resolvers", value: text, text: err.Error()}
		}
		known[at] = true
		p.Resolvers = append(p.Resolvers, at)
	}
	for _, text := range c.Names {
		n, err := pipeline.ParseProbeName(text)
		if err != nil {
			return p, &badValue{key: "prober.names", value: text, text: err.Error()}
		}
		p.Names = append(p.Names, n)
	}
	return p, nil
}

// validate asks a resolver, and judges by the trust anchors that hold now.
func (s *serving) validate(ctx context.Context, p observe.Probe) observe.Validated {
	return s.observer.Load().Validate(ctx, p)
}

// metricsPath is where metrics are.
const metricsPath = "/metrics"

// apiHandler is the API, whose requests are counted, with the metrics beside it;
// metrics is those alone.
func (s *serving) apiHandler() (all, alone http.Handler) {
	s.metrics = metrics.New(metrics.Config{
		Measure: s.engine.Measure, Published: s.xfr.Stats, Zones: s.cfg.Metrics.Zones, ZonesLimit: s.cfg.Metrics.ZonesLimit, Logger: s.log.With("part", "metrics"),
	})
	alone = s.metrics.Handler()
	calls := s.metrics.Instrument(api.Handler(s.engine, s.log.With("part", "api")))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == metricsPath && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			alone.ServeHTTP(w, r)
			return
		}
		calls.ServeHTTP(w, r)
	}), alone
}
