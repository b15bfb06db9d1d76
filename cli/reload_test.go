package cli

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiffering_NamesKeysAsTheFileDoes(t *testing.T) {
	a, b := defaultConfig(), defaultConfig()
	if got := differing(&a, &b); len(got) > 0 {
		t.Errorf("equal configs differ in %v", got)
	}
	b.Daemon.Workers = 2
	b.Loader.Review.Servers = nil
	b.Server.TLS.Key = "k"
	b.Daemon.Resolvers = nil // as good as empty
	want := []string{"daemon.workers", "loader.review.servers", "server.tls.key"}
	if diff := cmp.Diff(want, differing(&a, &b)); diff != "" {
		t.Error(diff)
	}
}

// What takes effect at run time is there: a key that was renamed would wait for
// a restart without anybody having said so.
func TestLive_KeysAreKeysOfTheConfig(t *testing.T) {
	cfg := defaultConfig()
	keys := configKeys(&cfg)
	for _, l := range new(serving).live() {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(keys)), l.has) {
			t.Errorf("%s is no key of the config", l.key)
		}
	}
	for key, value := range keys {
		if value.Kind() == reflect.Map || !value.CanSet() {
			t.Errorf("%s: a %s cannot be compared and taken over", key, value.Kind())
		}
	}
}
