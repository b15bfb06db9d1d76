package keymgr

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice/journal/event"
)

// Proof says that a worker proved a key.
type Proof struct {
	Worker string `json:"worker"`
	NKey   string `json:"nkey"` // as which it was enrolled then
}

// Prover is a worker that is to prove each key before that is put to use.
type Prover struct {
	Worker string
	NKey   string
}

// prove notes proofs: of each worker the newest counts.
func (k *Key) prove(f *event.KeyProved) {
	if k.Foreign {
		return
	}
	proved := slices.DeleteFunc(slices.Clone(k.Proved), func(p Proof) bool { return p.Worker == f.Worker })
	proved = append(proved, Proof{Worker: f.Worker, NKey: f.NKey})
	slices.SortFunc(proved, func(a, b Proof) int { return strings.Compare(a.Worker, b.Worker) })
	k.Proved = proved
}

// ProvedBy reports whether a worker, as it is enrolled, proved the key.
func (k *Key) ProvedBy(p Prover) bool { return slices.Contains(k.Proved, Proof(p)) }

// Unproved is the IDs of those keys among the given ones that were never in use
// and that a prover has not proved, by the name of the prover. Such keys are not
// put to use: what one process signed would not be what all can sign.
func (ks KeySet) Unproved(ids []string, provers []Prover) map[string][]string {
	var out map[string][]string
	for _, p := range provers {
		lacks := ks.only(ids, func(k *Key) bool { return !k.Foreign && k.Activated.IsZero() && !k.ProvedBy(p) })
		if len(lacks) == 0 {
			continue
		}
		if out == nil {
			out = map[string][]string{}
		}
		out[p.Worker] = lacks
	}
	return out
}

// UnprovedText says for whom keys wait, and what to do where one does not come.
func UnprovedText(unproved map[string][]string) string {
	var parts []string
	workers := slices.Sorted(maps.Keys(unproved))
	for _, worker := range workers {
		parts = append(parts, fmt.Sprintf("worker %s to prove possession of %s", worker, strings.Join(unproved[worker], ", ")))
	}
	return fmt.Sprintf("waits for %s; next: sluice key distribute, or sluice worker remove %s", strings.Join(parts, ", for "), workers[0])
}
