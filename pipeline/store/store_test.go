package store

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// seeded makes choices from a seed, which is all that they depend on.
type seeded struct{ state *uint64 }

// Uint64 is the next number of SplitMix64.
func (s seeded) Uint64() uint64 {
	*s.state += 0x9e3779b97f4a7c15
	n := *s.state
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

func (s seeded) pick(n int) int { return int(s.Uint64() % uint64(n)) }

func newSeeded(seed int) seeded {
	state := uint64(seed)
	return seeded{&state}
}

// Views at each instance equal a model that keeps whole maps, whatever is
// loaded, signed, branched, published and reopened.
func TestStore_EqualsModel(t *testing.T) {
	runs := 30
	if testing.Short() {
		runs = 6
	}
	for seed := range runs {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			p := newSeeded(seed)
			fs := vfs.NewMem()
			cfg := Config{BatchLimit: uint64(1 + p.pick(2)*1000), TableSize: 1000}
			s := openTest(t, fs, cfg)
			s.many = uint64(p.pick(2) * 1000)
			defer func() { s.Close() }()
			m := newModel("example.", 2+p.pick(6))
			m.apply(t, s, m.events[0])
			for range 5 + p.pick(40) {
				held, err := s.Instances(m.id)
				if err != nil {
					t.Fatal(err)
				}
				m.step(p, held)
				m.apply(t, s, m.events[len(m.events)-1])
				m.check(t, s)
				if p.pick(8) == 0 {
					many := s.many
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = openTest(t, fs, cfg)
					s.many = many
					m.check(t, s)
				}
			}
		})
	}
}
