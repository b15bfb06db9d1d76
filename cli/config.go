package cli

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"sluice/cli/metrics"
	"sluice/pipeline"
	"sluice/pipeline/observe"
	"sluice/xfr"
)

//go:embed config.template.toml
var configTemplate string

// config is the daemon's config. Only serve knows it.
type config struct {
	Version   string         `toml:"version"`
	DataDir   string         `toml:"data-dir"`
	Socket    string         `toml:"socket"`
	PolicyDir string         `toml:"policy-dir"`
	Daemon    daemonConfig   `toml:"daemon"`
	Server    serverConfig   `toml:"server"`
	Loader    reviewConfig   `toml:"loader"`
	Signer    reviewConfig   `toml:"signer"`
	Journal   journalConfig  `toml:"journal"`
	Transfers transferConfig `toml:"transfers"`
	Audit     auditConfig    `toml:"audit"`
	Worker    workerConfig   `toml:"worker"`
	Metrics   metricsConfig  `toml:"metrics"`
	Prober    proberConfig   `toml:"prober"`
	Alarms    alarmsConfig   `toml:"alarms"`
	HTTP      httpConfig     `toml:"http"`
}

type daemonConfig struct {
	LogLevel     level     `toml:"log-level"`
	LogFormat    logFormat `toml:"log-format"`
	MemoryLimit  size      `toml:"memory-limit"`
	Workers      int       `toml:"workers"`
	Resolvers    []string  `toml:"resolvers"`
	TrustAnchors []string  `toml:"trust-anchors"`
}

type serverConfig struct {
	Servers   []string  `toml:"servers"`
	WeakTSIG  bool      `toml:"weak-tsig"`
	StopGrace duration  `toml:"stop-grace"`
	TLS       tlsConfig `toml:"tls"`
}

// transferConfig bounds transfers in.
type transferConfig struct {
	MaxSize    size     `toml:"max-size"`
	MaxRecords int64    `toml:"max-records"`
	MaxTime    duration `toml:"max-time"`
	Idle       duration `toml:"idle"`
}

// limits are the bounds as the client takes them.
func (t transferConfig) limits() xfr.Limits {
	return xfr.Limits{
		MaxBytes: int64(t.MaxSize), MaxRecords: t.MaxRecords, MaxTime: time.Duration(t.MaxTime), Idle: time.Duration(t.Idle),
	}
}

// check finds values that cannot work; nil where there are none.
func (t transferConfig) check() *badValue {
	switch {
	case t.MaxSize <= 0:
		return &badValue{key: "transfers.max-size", text: `max-size: want a size above 0, such as "32GiB"`}
	case t.MaxRecords <= 0:
		return &badValue{key: "transfers.max-records", text: fmt.Sprintf("max-records = %d: want a number above 0", t.MaxRecords)}
	case time.Duration(t.MaxTime) < time.Second:
		return &badValue{key: "transfers.max-time", text: "max-time: want at least a second"}
	case time.Duration(t.Idle) < time.Second:
		return &badValue{key: "transfers.idle", text: "idle: want at least a second"}
	}
	return nil
}

// duration is a duration in a config file, such as "2h30m".
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	v, err := pipeline.ParseDuration(string(text))
	*d = duration(v)
	return err
}

// reviewConfig is where a review listener stands.
type reviewConfig struct {
	Review struct {
		Servers []string `toml:"servers"`
	} `toml:"review"`
}

// Where review listeners stand by default. Where somebody else is there, any
// other port does: nothing depends on it but what the daemon itself tells.
const (
	defaultReviewLoaded = "127.0.0.1:8054"
	defaultReviewSigned = "127.0.0.1:8055"
)

type journalConfig struct {
	EventsMaxSize size `toml:"events-max-size"`
	BulkMaxSize   size `toml:"bulk-max-size"`
	ReserveMax    size `toml:"reserve-max"`
	// ArchiveDir takes the chunks that retention purges; "" is none.
	ArchiveDir string `toml:"archive-dir"`
}

// defaultConfig is what holds without a config file: what the template says.
func defaultConfig() config {
	cfg := config{
		Version: "v1",
		DataDir: "./sluice-data",
		Daemon:  daemonConfig{LogLevel: level(slog.LevelInfo), LogFormat: logAuto, MemoryLimit: 250 << 20, Resolvers: []string{}, TrustAnchors: []string{}},
		Journal: journalConfig{ReserveMax: 2 << 30},
		Audit:   auditConfig{Interval: duration(time.Hour), Events: 10_000, HookTimeout: duration(time.Minute), Witnesses: []string{}, Seal: []string{}},
		Transfers: transferConfig{
			MaxSize: 32 << 30, MaxRecords: 1_000_000_000, MaxTime: duration(2 * time.Hour), Idle: duration(30 * time.Second),
		},
		Metrics: metricsConfig{Zones: metrics.ZonesAuto, ZonesLimit: metrics.DefaultZonesLimit}, Prober: defaultProber(),
		Alarms: defaultAlarms(),
		HTTP:   defaultHTTP(),
		Worker: workerConfig{URLs: []string{}, Roles: []string{}, Advertise: []string{}},
		Server: serverConfig{Servers: []string{"127.0.0.1:8053"}, StopGrace: duration(5 * time.Second), TLS: tlsConfig{Servers: []string{}}},
	}
	cfg.Loader.Review.Servers = []string{defaultReviewLoaded}
	cfg.Signer.Review.Servers = []string{defaultReviewSigned}
	return cfg
}

// readConfig reads a config file on top of the defaults.
func readConfig(path string) (config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return config{}, err
	}
	return parseConfig(path, text)
}

// parseConfig reads a config; errors name the line.
func parseConfig(path string, text []byte) (config, error) {
	cfg := defaultConfig()
	cfg.Version = ""
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&cfg); err != nil {
		return config{}, configErrors(path, text, err)
	}
	lines := readConfigLines(text)
	if cfg.Version != "v1" {
		return config{}, fault(path, lines.at("version", ""), `version = %q: want version = "v1"`, cfg.Version)
	}
	if bad := cfg.check(); bad != nil {
		return config{}, fault(path, lines.at(bad.key, bad.value), "%w", bad)
	}
	return cfg, nil
}

// badValue is a value that cannot work.
type badValue struct {
	key   string // where it stands in a config file
	value string // of a list, the item that is wrong
	text  string
}

func (b *badValue) Error() string { return b.text }

// check finds values that cannot work; nil where there are none.
func (c *config) check() *badValue {
	switch {
	case c.DataDir == "":
		return &badValue{key: "data-dir", text: "data-dir is empty"}
	case c.Daemon.Workers < 0 || c.Daemon.Workers > 1024:
		return &badValue{key: "daemon.workers", text: fmt.Sprintf("workers = %d: want 0 to 1024", c.Daemon.Workers)}
	case c.Daemon.MemoryLimit < 64<<20:
		return &badValue{key: "daemon.memory-limit", text: `memory-limit: want at least "64MiB"`}
	case len(c.Server.Servers) == 0:
		return &badValue{key: "server.servers", text: "servers is empty: nothing would be published"}
	case c.Server.StopGrace < duration(time.Second) || c.Server.StopGrace > duration(10*time.Minute):
		return &badValue{key: "server.stop-grace", text: `stop-grace: want "1s" to "10m"`}
	}
	for _, s := range slices.Concat(c.Server.Servers, c.Loader.Review.Servers, c.Signer.Review.Servers) {
		if err := checkListen(s); err != nil {
			return &badValue{key: "server.servers", value: s, text: err.Error()}
		}
	}
	for _, s := range c.Daemon.Resolvers {
		if _, err := parseResolver(s); err != nil {
			return &badValue{key: "daemon.resolvers", value: s, text: err.Error()}
		}
	}
	for _, s := range c.Daemon.TrustAnchors {
		if _, err := observe.ParseAnchor(s); err != nil {
			return &badValue{key: "daemon.trust-anchors", value: s, text: err.Error()}
		}
	}
	if bad := c.Transfers.check(); bad != nil {
		return bad
	}
	if bad := c.Audit.check(); bad != nil {
		return bad
	}
	if bad := c.Worker.check(); bad != nil {
		return bad
	}
	if bad := c.Metrics.check(); bad != nil {
		return bad
	}
	if bad := c.Prober.check(); bad != nil {
		return bad
	}
	if bad := c.Alarms.check(); bad != nil {
		return bad
	}
	if bad := c.HTTP.check(); bad != nil {
		return bad
	}
	return c.Server.TLS.check()
}

// checkListen checks an address to listen on.
func checkListen(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil && host != "" && net.ParseIP(strings.SplitN(host, "%", 2)[0]) == nil {
		err = errors.New("not an IP address")
	}
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("address %q: want IP:PORT such as 127.0.0.1:8053 or [::1]:8053", address)
	}
	return nil
}

// configErrors gives line numbers to what the TOML decoder found.
func configErrors(path string, text []byte, err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var all []error
		for i := range strict.Errors {
			e := &strict.Errors[i]
			row, _ := e.Position()
			all = append(all, fmt.Errorf("%s:%d: unknown key %s", path, row, strings.Join(e.Key(), ".")))
		}
		return errors.Join(all...)
	}
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := decode.Position()
		return fmt.Errorf("%s:%d: %s", path, row, readConfigLines(text).decodeText(decode, row))
	}
	return readConfigLines(text).decodeFault(path, err)
}

// level is a log level in a config file.
type level slog.Level

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *level) UnmarshalText(text []byte) error {
	var v slog.Level
	switch string(text) {
	case "debug":
		v = slog.LevelDebug
	case "info":
		v = slog.LevelInfo
	case "warn":
		v = slog.LevelWarn
	case "error":
		v = slog.LevelError
	default:
		return fmt.Errorf("log level %q: want debug, info, warn or error", text)
	}
	*l = level(v)
	return nil
}

// size is a number of bytes in a config file, such as "250MiB".
type size int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *size) UnmarshalText(text []byte) error {
	digits := strings.TrimRight(string(text), "KMGTiB")
	n, err := strconv.ParseInt(digits, 10, 63)
	shift, ok := map[string]uint{"": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[string(text[len(digits):])]
	if err != nil || !ok || n < 0 || n > math.MaxInt64>>shift {
		return fmt.Errorf(`size %q: want a number with KiB, MiB, GiB or TiB, such as "250MiB"`, text)
	}
	*s = size(n << shift)
	return nil
}
