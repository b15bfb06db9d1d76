package migrate

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// readPDNSUtil reads a backend by pdnsutil, which knows all of them.
func readPDNSUtil(ctx context.Context, dir string) (pdnsData, error) {
	var data pdnsData
	run := func(args ...string) (string, error) {
		text, err := runTool(ctx, "pdnsutil", append([]string{"--config-dir=" + dir}, args...)...)
		return string(text), err
	}
	list, err := run("list-all-zones")
	if err != nil {
		return data, err
	}
	for name := range strings.FieldsSeq(list) {
		z := pdnsZone{name: name, kind: "NATIVE", live: map[string]int{}}
		shown, err := run("show-zone", name)
		if err != nil {
			return data, err
		}
		if err := z.shown(shown); err != nil {
			return data, fmt.Errorf("pdnsutil show-zone %s: %w", name, err)
		}
		meta, err := run("get-meta", name)
		if err != nil {
			return data, err
		}
		z.meta = parsePDNSMeta(meta)
		for i := range z.keys {
			k := &z.keys[i]
			text, err := run("export-zone-key", name, strconv.Itoa(k.id))
			if err != nil {
				return data, err
			}
			k.content = []byte(text)
		}
		records, err := run("list-zone", name)
		if err != nil {
			return data, err
		}
		z.records(records)
		data.zones = append(data.zones, z)
	}
	keys, err := run("list-tsig-keys")
	if err != nil {
		return data, err
	}
	for line := range strings.Lines(keys) {
		words := strings.Fields(line)
		if len(words) != 3 {
			continue
		}
		key, err := pdnsTSIG(words[0], words[1], words[2])
		if err != nil {
			return data, err
		}
		data.tsig = append(data.tsig, key)
	}
	return data, nil
}

// shown reads what pdnsutil show-zone prints: the kind, the primaries and the
// keys.
func (z *pdnsZone) shown(text string) error {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "This is a "); ok {
			z.kind = pdnsKind(strings.TrimSuffix(rest, " zone"))
		}
		for _, word := range []string{"Primaries:", "Primary:", "Masters:", "Master:"} {
			if rest, ok := strings.CutPrefix(line, word); ok {
				z.masters = append(z.masters, strings.Fields(strings.ReplaceAll(rest, ",", " "))...)
			}
		}
		if !strings.HasPrefix(line, "ID = ") {
			continue
		}
		k, err := pdnsShownKey(line)
		if err != nil {
			return err
		}
		z.keys = append(z.keys, k)
	}
	return nil
}

// pdnsKind is a zone's kind as databases have it.
func pdnsKind(word string) string {
	switch strings.ToUpper(word) {
	case "MASTER", "PRIMARY":
		return "MASTER"
	case "SLAVE", "SECONDARY":
		return "SLAVE"
	}
	return strings.ToUpper(word)
}

// pdnsShownKey reads a line such as
//
//	ID = 1 (CSK), flags = 257, tag = 52792, algo = 13, bits = 256	  Active	 Published  ( ECDSAP256SHA256 )
func pdnsShownKey(line string) (pdnsKey, error) {
	var k pdnsKey
	bad := fmt.Errorf("%q is no key", line)
	rest, ok := strings.CutPrefix(line, "ID = ")
	number, _, _ := strings.Cut(rest, " ")
	id, err := strconv.Atoi(number)
	if !ok || err != nil {
		return k, bad
	}
	_, rest, ok = strings.Cut(line, "flags = ")
	number, _, _ = strings.Cut(rest, ",")
	flags, err := strconv.ParseUint(strings.TrimSpace(number), 10, 16)
	if !ok || err != nil {
		return k, bad
	}
	k.id, k.flags = id, uint16(flags)
	_, rest, ok = strings.Cut(line, "bits = ")
	if !ok {
		return k, bad
	}
	for word := range strings.FieldsSeq(rest) {
		switch word {
		case "Active":
			k.active = true
		case "Published":
			k.published = true
		}
	}
	return k, nil
}

// parsePDNSMeta reads what pdnsutil get-meta prints: "KIND = value, value".
func parsePDNSMeta(text string) map[string][]string {
	meta := map[string][]string{}
	for line := range strings.Lines(text) {
		kind, list, ok := strings.Cut(strings.TrimSpace(line), " = ")
		if !ok {
			continue
		}
		for value := range strings.SplitSeq(list, ", ") {
			if value = strings.TrimSpace(value); value != "" {
				meta[strings.ToUpper(kind)] = append(meta[strings.ToUpper(kind)], value)
			}
		}
	}
	return meta
}

// records reads what pdnsutil list-zone prints, for the SOA and for records that
// are made when they are asked for.
func (z *pdnsZone) records(text string) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 5 {
			continue
		}
		switch words[3] {
		case "SOA":
			z.soa(strings.Join(words[4:], " "))
		case "ALIAS", "LUA":
			z.live[words[3]]++
		}
	}
}
