package store

import (
	"encoding/hex"
	"fmt"
	"maps"

	"sluice/signer/zone"
)

// visible are the items of a signed instance as served.
func (m *model) visible(in *instance) map[string]string {
	out := maps.Clone(in.items)
	for k, v := range m.instances[in.loaded].items {
		if _, hidden := in.items[string(byte(zone.KindMade))+k[1:]]; !hidden {
			out[k] = v
		}
	}
	return out
}

// records is a set of items as single records, the SOA left out.
func records(items map[string]string) map[string]int {
	out := map[string]int{}
	for k, v := range items {
		addRecords(out, k, v, 1)
	}
	return out
}

func addRecords(out map[string]int, k, v string, n int) {
	kind, ownerKey, t, err := zone.SplitKey([]byte(k))
	if err != nil {
		panic(err)
	}
	rr := t.String()
	switch {
	case kind == zone.KindSigs || kind == zone.KindChainSigs:
		rr = fmt.Sprintf("RRSIG %s %d", t, kind)
	case kind == zone.KindChain:
		rr = "chain " + rr
	case t == zone.TypeSOA:
		return
	}
	value := zone.Value(v)
	for d := range value.Records() {
		r := fmt.Sprintf("%s %s %d %s %s", hex.EncodeToString(ownerKey), hex.EncodeToString(value.Owner()), value.TTL(), rr, hex.EncodeToString(d))
		if out[r] += n; out[r] == 0 {
			delete(out, r)
		}
	}
}
