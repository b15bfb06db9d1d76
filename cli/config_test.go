package cli

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConfigTemplate_IsTheDefaults(t *testing.T) {
	got, err := parseConfig("template", []byte(configTemplate))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaultConfig(), got); diff != "" {
		t.Error(diff)
	}
}

// Every option stands in the template: without its line the template no
// longer says all.
func TestConfigTemplate_NamesEveryOption(t *testing.T) {
	for _, key := range []string{
		"version", "data-dir", "socket", "policy-dir", "stop-grace", "log-level", "memory-limit", "workers", "servers", "events-max-size", "bulk-max-size",
		"resolvers", "max-size", "max-records", "max-time", "idle", "certificate", "key", "client-roots", "roots",
	} {
		if !strings.Contains(configTemplate, "\n"+key+" = ") {
			t.Errorf("%s is not in the template", key)
		}
	}
}

func TestParseConfig_ValuesReplaceDefaults(t *testing.T) {
	got, err := parseConfig("c", []byte("version = 'v1'\n[daemon]\nlog-level = 'debug'\nmemory-limit = '1GiB'\n[server]\nservers = ['[::1]:53']\n[journal]\nbulk-max-size = '2TiB'\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := defaultConfig()
	want.Daemon.LogLevel = level(slog.LevelDebug)
	want.Daemon.MemoryLimit = 1 << 30
	want.Server.Servers = []string{"[::1]:53"}
	want.Journal.BulkMaxSize = 2 << 40
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseConfig_MistakesNameTheLine(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"no version", "data-dir = 'x'\n", `c: version = "": want version = "v1"`},
		{"other version", "version = 'v2'\n", `c:1: version = "v2"`},
		{"unknown key", "version = 'v1'\n\ndata = 'x'\n", "c:3: unknown key data"},
		{"unknown key in a table", "version = 'v1'\n[server]\nserver = []\n", "c:3: unknown key server.server"},
		{"two unknown keys", "version = 'v1'\na = 1\nb = 2\n", "c:3: unknown key b"},
		{"bad syntax", "version = 'v1'\ndata-dir =\n", "c:2: "},
		{"wrong type", "version = 'v1'\ndata-dir = 3\n", "c:2: data-dir: want a string, not a TOML integer"},
		{"wrong type in a table", "version = 'v1'\n[server]\n\nservers = 3\n", "c:4: "},
		{"a text for a list", "version = 'v1'\n[server]\nservers = 'x'\n", "c:3: server.servers: want a list of strings, not a TOML string"},
		{"a text for a number", "version = 'v1'\n[daemon]\nworkers = 'x'\n", "c:3: daemon.workers: want a number, not a TOML string"},
		{"a text for a flag", "version = 'v1'\n[server]\nweak-tsig = 'x'\n", "c:3: server.weak-tsig: want true or false, not a TOML string"},
		{"a fraction", "version = 'v1'\n[http.limits]\nrequests = 1.5\n", "c:3: http.limits.requests: want a whole number"},
		{"a value for a table", "version = 'v1'\ndaemon = 3\n", "c:2: daemon: want a table, not a TOML integer"},
		{"a key twice", "version = 'v1'\n[daemon]\nworkers = 1\nworkers = 2\n", "c:4: key workers stands twice"},
		{"a table twice", "version = 'v1'\n[daemon]\nworkers = 1\n[daemon]\n", "c:4: table daemon stands twice"},
		{"bad level", "version = 'v1'\n[daemon]\nlog-level = 'loud'\n", "log level"},
		{"bad size", "version = 'v1'\n[daemon]\nmemory-limit = '1GB'\n", "size"},
		{"size that overflows", "version = 'v1'\n[journal]\nbulk-max-size = '9999999999TiB'\n", "size"},
		{"too little memory", "version = 'v1'\n[daemon]\nmemory-limit = '1MiB'\n", "c:3: memory-limit: want at least"},
		{"no time to stop", "version = 'v1'\n[server]\nstop-grace = '0s'\n", "c:3: stop-grace: want"},
		{"no servers", "version = 'v1'\n[server]\nservers = []\n", "c:3: servers is empty"},
		{"no time for transfers", "version = 'v1'\n[transfers]\nmax-time = '0s'\n", "c:3: max-time: want at least a second"},
		{"no duration", "version = 'v1'\n[transfers]\nidle = 'soon'\n", "duration \"soon\""},
		{"no records", "version = 'v1'\n[transfers]\nmax-records = 0\n", "c:3: max-records = 0: want a number above 0"},
		{"no bytes", "version = 'v1'\n[transfers]\nmax-size = '0'\n", "c:3: max-size: want a size above 0"},
		{"name as resolver", "version = 'v1'\n[daemon]\nresolvers = ['192.0.2.1', 'ns.example']\n", "c:3: resolver \"ns.example\": want IP or IP:PORT"},
		{"certificate without key", "version = 'v1'\n[server.tls]\ncertificate = 'c.pem'\n", "c:3: certificate and key belong together"},
		{"name as TLS server", "version = 'v1'\n[server.tls]\nservers = ['ns1.example:853']\n", "c:3: address \"ns1.example:853\": want IP:PORT"},
		{"name as server", "version = 'v1'\n[server]\nservers = [\n'127.0.0.1:53',\n'localhost:53']\n", "c:5: address \"localhost:53\": want IP:PORT"},
		{"no port", "version = 'v1'\n[server]\nservers = ['127.0.0.1']\n", "want IP:PORT"},
		{"bad port", "version = 'v1'\n[server]\nservers = ['127.0.0.1:65536']\n", "want IP:PORT"},
		{"no data directory", "version = 'v1'\ndata-dir = ''\n", "c:2: data-dir is empty"},
		{"workers below 0", "version = 'v1'\n[daemon]\n# workers = 2\nworkers = -1\n", "c:4: workers = -1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseConfig("c", []byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(configTemplate))
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := parseConfig("c", text)
		if err == nil && (cfg.Version != "v1" || len(cfg.Server.Servers) == 0) {
			t.Errorf("accepted %+v", cfg)
		}
	})
}
