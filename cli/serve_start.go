package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/user"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline"
)

// servingInfo is what serve prints first.
type servingInfo struct {
	Data        string   `json:"data"`
	API         string   `json:"api"`
	Publication []string `json:"publication"`
	// PublicationTLS is where zones are published over TLS, TLSPin the pin of
	// the key that the daemon proves itself with there.
	PublicationTLS []string `json:"publication_tls,omitempty"`
	TLSPin         string   `json:"tls_pin,omitempty"`
	// HTTP is where the API is on the network, HTTPPin the pin of the key that the
	// daemon proves itself with there; "" where its certificate does.
	HTTP         []string `json:"http,omitempty"`
	HTTPPin      string   `json:"http_pin,omitempty"`
	ReviewLoaded string   `json:"review_loaded,omitempty"`
	ReviewSigned string   `json:"review_signed,omitempty"`
	// Worker is this process's name among those that share the journal, NATS
	// where others reach it, or where it is.
	Worker string   `json:"worker,omitempty"`
	NATS   []string `json:"nats,omitempty"`
	Clock  string   `json:"clock"`
	Zones  int      `json:"zones"`
}

// zoneStart is what serve prints of each zone named on its command line.
type zoneStart struct {
	pipeline.ZoneStatus
	DS         []pipeline.DSRecord `json:"ds"`
	TookMS     int64               `json:"took_ms"`
	Query      string              `json:"query"`
	LoadErrors []string            `json:"load_errors,omitempty"`
}

// start waits until the journal is read, says where the daemon serves, and
// adds the zones of the command line.
func (s *serving) start(ctx context.Context) error {
	if err := s.awaitReady(ctx); err != nil {
		return nil //nolint:nilerr // the daemon stops; whoever stopped it says why
	}
	zones, err := s.engine.Zones(ctx)
	if err != nil {
		return err
	}
	info := servingInfo{Data: s.data.path, API: "unix:" + s.socket, Clock: s.clockName, Zones: len(zones)}
	for _, l := range s.listens {
		info.Publication = append(info.Publication, l.String())
	}
	for _, l := range s.listensTLS {
		info.PublicationTLS, info.TLSPin = append(info.PublicationTLS, l.String()), s.secure.certificate.Pin()
	}
	if info.HTTP = s.httpURLs(); len(info.HTTP) > 0 {
		info.HTTPPin = s.httpPin()
	}
	if s.shared() {
		info.Worker, info.NATS = s.workerName(), s.joining.URLs
		if s.remote() {
			info.NATS = s.cfg.Worker.URLs
		}
	}
	if at, ok := s.reviewAt[event.StageLoaded]; ok {
		info.ReviewLoaded = at.String()
	}
	if at, ok := s.reviewAt[event.StageSigned]; ok {
		info.ReviewSigned = at.String()
	}
	s.engine.SetListeners(info.listeners())
	if err := s.printInfo(info); err != nil {
		return err
	}
	if tokens, err := s.engine.Tokens(ctx); err == nil && len(tokens) == 0 && len(info.HTTP) > 0 {
		s.e.note("there is no token yet for the API on the network: sluice token add NAME --role ROLE -o FILE")
	}
	for _, z := range s.zones {
		if err := s.startZone(ctx, z); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the daemon stops
			}
			s.log.ErrorContext(ctx, "zone not added", "zone", z.Name, "error", err)
		}
	}
	return nil
}

// listeners is where the daemon listens.
func (i servingInfo) listeners() []pipeline.Listener {
	var out []pipeline.Listener
	add := func(name string, addresses ...string) {
		for _, a := range addresses {
			if a != "" {
				out = append(out, pipeline.Listener{Name: name, Address: a})
			}
		}
	}
	add("publication", i.Publication...)
	add("publication-tls", i.PublicationTLS...)
	add("review-loaded", i.ReviewLoaded)
	add("review-signed", i.ReviewSigned)
	add("api", i.API)
	add("http", i.HTTP...)
	return out
}

// awaitReady waits until the engine has read the journal.
func (s *serving) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for s.engine.Health(ctx) != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *serving) printInfo(info servingInfo) error {
	if s.e.json {
		return s.e.printLine(info)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "data in %s, API on %s\n", info.Data, info.API)
	for _, p := range info.Publication {
		fmt.Fprintf(&b, "publication on %s, UDP and TCP\n", p)
	}
	for _, p := range info.PublicationTLS {
		fmt.Fprintf(&b, "publication on %s, TLS, %s\n", p, info.TLSPin)
	}
	b.WriteString(httpLines(info))
	if info.Worker != "" {
		where := "workers reach the journal at "
		if s.remote() {
			where = "the journal is at "
		}
		fmt.Fprintf(&b, "process %s with the roles %s; %s%s\n", info.Worker, roleList(s.roles), where, strings.Join(info.NATS, ", "))
	}
	if info.ReviewLoaded+info.ReviewSigned != "" {
		fmt.Fprintf(&b, "reviews on %s (loaded), %s (signed)\n", cmp.Or(info.ReviewLoaded, "none"), cmp.Or(info.ReviewSigned, "none"))
	}
	if info.Clock == rehearsalClock {
		fmt.Fprintf(&b, "REHEARSAL: the clock shows %s\n", when(s.clock.Now()))
	}
	if info.Zones > 0 {
		fmt.Fprintf(&b, "%s here already; see: sluice zone list\n", count(uint64(info.Zones), "zone"))
	}
	return s.e.printf("%s", b.String())
}

// startZone adds a zone of the command line, or loads it where it is here
// already, and tells what came of it.
func (s *serving) startZone(ctx context.Context, z pipeline.NewZone) error {
	began := time.Now()
	actor := event.Actor{Name: "unknown", Door: "cli"}
	if u, err := user.Current(); err == nil {
		actor.Name = u.Username
	}
	have, err := s.engine.Zone(ctx, z.Name)
	switch {
	case errors.Is(err, pipeline.ErrNotFound):
		_, err = s.engine.AddZone(ctx, actor, z)
	case err == nil && have.Source != z.Source:
		return fmt.Errorf("it is here already with the source %s: %w", have.Source, pipeline.ErrState)
	case err == nil:
		if err = s.engine.Reload(ctx, actor, z.Name, false); errors.Is(err, pipeline.ErrState) {
			s.log.WarnContext(ctx, "zone not loaded", "zone", z.Name, "reason", err)
			err = nil
		}
	}
	if err != nil {
		return err
	}
	m := s.e.newMeter()
	status, err := s.engine.Await(ctx, z.Name, m.show)
	m.end()
	if err != nil {
		return err
	}
	start := zoneStart{ZoneStatus: status, TookMS: time.Since(began).Milliseconds(), Query: s.query(status.Name)}
	if start.DS, err = s.engine.DS(ctx, z.Name, "ds"); err != nil {
		return err
	}
	if status.LastError != "" {
		start.LoadErrors, err = loadErrors(status.LastError, func(fn func(line []byte) error) error {
			return s.engine.History(ctx, z.Name, lastLoadFailure(), func(l pipeline.HistoryLine) error { return fn(l.Event) })
		})
		if err != nil {
			s.log.WarnContext(ctx, "list of errors not read", "zone", status.Name, "error", err)
		}
	}
	if s.e.json {
		return s.e.printLine(start)
	}
	return s.printZone(start)
}

// query is a line that asks for the zone where it is published.
func (s *serving) query(name string) string {
	if len(s.listens) == 0 {
		return "" // it is served elsewhere
	}
	at := s.listens[0]
	addr := at.Addr()
	if addr.IsUnspecified() {
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return fmt.Sprintf("dig @%s -p %d %s AXFR", addr, at.Port(), name)
}

// printZone tells what became of a zone.
func (s *serving) printZone(z zoneStart) error {
	e := s.e
	if z.LastError != "" {
		if err := e.printf("\nzone %s: %s\n", z.Name, e.paint(red, z.LastError)); err != nil {
			return err
		}
		if len(z.LoadErrors) > 1 {
			for _, text := range z.LoadErrors {
				if err := e.printf("  %s\n", text); err != nil {
					return err
				}
			}
		}
		if err := e.printf("  correct it, then: sluice zone reload %s\n", z.Name); err != nil {
			return err
		}
	}
	if z.Published == nil {
		return nil
	}
	return e.printf("%s", e.zoneText(z))
}

// zoneText tells what is published of a zone.
func (e *env) zoneText(z zoneStart) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nzone %s\n", z.Name)
	if l := z.Loaded; l != nil {
		fmt.Fprintf(&b, "  loaded     %s from %s, serial %d\n", count(l.Records, "record"), z.Source, l.Serial)
		if len(l.Stripped) > 0 {
			fmt.Fprintf(&b, "             left out of the input: %s\n", strippedText(l.Stripped))
		}
		for _, n := range l.Notices {
			fmt.Fprintf(&b, "             notice: %s\n", n)
		}
	}
	for _, k := range z.Keys {
		if k.State != keymgr.Removed {
			fmt.Fprintf(&b, "  key        %s %s, tag %d, %s, %s\n", k.Role, keymgr.AlgorithmName(k.Algorithm), k.Tag, k.State, keyOrigin(k))
		}
	}
	p := z.Published
	fmt.Fprintf(&b, "  published  %s, %s, serial %d\n", count(p.Records, "record"), count(p.Signatures, "signature"), p.Serial)
	if z.NextExpiry != nil {
		fmt.Fprintf(&b, "             signatures valid until %s\n", when(*z.NextExpiry))
	}
	for _, d := range z.DS {
		fmt.Fprintf(&b, "  DS         %s\n             %s\n", d.Record, e.paint(yellow, d.Note))
	}
	fmt.Fprintf(&b, "  took       %s\n", tookText(time.Duration(z.TookMS)*time.Millisecond))
	if z.Query != "" {
		fmt.Fprintf(&b, "  ask it     %s\n", z.Query)
	}
	return b.String()
}

// keyOrigin says where a key came from.
func keyOrigin(k keymgr.Key) string {
	if k.Foreign {
		return "of another signer"
	}
	if k.Imported {
		return "imported"
	}
	return "made " + when(k.Generated)
}
