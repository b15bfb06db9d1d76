package migrate

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// endpoint is an address of named as policies have it: IP[:PORT][^TSIGKEY].
func endpoint(addr, port, key string) (string, error) {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return "", fmt.Errorf("%q is no address", addr)
	}
	text := ip.String()
	switch {
	case port != "" && port != "53":
		text = net.JoinHostPort(text, port)
	case ip.Is6():
		text = "[" + text + "]:53"
	}
	if key != "" {
		text += "^" + strings.TrimSuffix(strings.ToLower(key), ".")
	}
	return text, nil
}

// servers are those of the first of these statements that a zone has, or
// inherits, with the lists that it names put in.
func (r *bindReader) servers(z bindZone, words ...string) ([]string, error) {
	for _, word := range words {
		if s, ok := z.stmt(word); ok {
			return r.serverList(s, "", "", 0)
		}
	}
	return nil, nil
}

// serverList reads [port N] { ADDRESS [port N] [key K] [tls T]; LIST; ... }.
func (r *bindReader) serverList(s statement, port, key string, depth int) (out []string, err error) {
	if depth > 10 {
		return nil, fmt.Errorf("%s: lists of servers name each other", s.at())
	}
	if p := s.after("port"); p != "" {
		port = p
	}
	list, _ := s.inner()
	for _, one := range list {
		own := port
		if p := one.after("port"); p != "" {
			own = p
		}
		k := key
		if name := one.after("key"); name != "" {
			k = name
		}
		if other, ok := r.lists[one.word(0)]; ok {
			more, err := r.serverList(other, own, k, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
			continue
		}
		text, err := endpoint(one.word(0), own, k)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.at(), err)
		}
		if k != "" {
			r.used[strings.TrimSuffix(strings.ToLower(k), ".")] = true
		}
		if t := one.after("tls"); t != "" {
			text = r.overTLS(text, t, own)
		}
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out, nil
}

// overTLS is an endpoint that is reached over TLS.
func (r *bindReader) overTLS(text, name, port string) string {
	host, _ := r.tls[name].last("remote-hostname")
	if host.word(1) == "" {
		r.out.Unequal = append(r.out.Unequal, fmt.Sprintf("%s is reached over TLS (tls %s) without remote-hostname: here a server over TLS must prove itself; it stands in the plan without TLS", text, name))
		return text
	}
	if port == "" {
		text = strings.TrimSuffix(text, ":53")
	}
	return "tls://" + text + "#" + host.word(1)
}

// outbound finds where named gives a zone out, and who takes it.
func (r *bindReader) outbound(one *Zone, z bindZone) error {
	also, err := r.servers(z, "also-notify")
	if err != nil {
		return err
	}
	for _, s := range also {
		address, _, _ := strings.Cut(s, "^")
		one.Secondaries = append(one.Secondaries, address)
	}
	prefixes, _ := r.mayTransfer(z)
	key := ""
	for _, p := range prefixes {
		where, k, _ := strings.Cut(p, "^")
		if !strings.Contains(where, "/") && !slices.Contains(one.Secondaries, where) && !strings.HasPrefix(where, "127.") && where != "::1" {
			one.Secondaries = append(one.Secondaries, where)
		}
		if k != "" && strings.Contains(where, "/0") {
			key = k
		}
	}
	one.Primary = r.listens()
	if one.Primary != "" && key != "" {
		one.Primary += "^" + key
	}
	return nil
}

// listens is an address at which named answers this machine.
func (r *bindReader) listens() string {
	z := bindZone{chain: []block{r.options}}
	for _, word := range []string{"listen-on", "listen-on-v6"} {
		list := r.options.all(word)
		for _, s := range list {
			if s.after("tls") != "" || s.after("http") != "" {
				continue
			}
			port := s.after("port")
			if port == "" {
				port = z.word("port")
			}
			b, _ := s.inner()
			for _, one := range b {
				addr := one.word(0)
				switch addr {
				case "any", "localhost":
					addr = map[string]string{"listen-on": "127.0.0.1", "listen-on-v6": "::1"}[word]
				case "none":
					continue
				}
				if text, err := endpoint(addr, port, ""); err == nil {
					return text
				}
			}
		}
	}
	if len(r.options.all("listen-on")) > 0 {
		return ""
	}
	text, err := endpoint("127.0.0.1", z.word("port"), "")
	if err != nil {
		return ""
	}
	return text
}

// mayTransfer is who may transfer a zone, as policies have it; clear says that
// the list says so in words that have an equal here.
func (r *bindReader) mayTransfer(z bindZone) (prefixes []string, clear bool) {
	s, ok := z.stmt("allow-transfer")
	if !ok {
		return nil, true
	}
	b, _ := s.inner()
	r.entries = 0
	return r.prefixes(b, 0)
}

// maxPrefixes bounds the entries of an address match list, with those of the
// lists that it names.
const maxPrefixes = 10_000

// prefixes reads an address match list.
func (r *bindReader) prefixes(b block, depth int) (out []string, clear bool) {
	clear = depth < 10
	if !clear {
		return nil, false
	}
	for _, s := range b {
		if r.entries++; r.entries > maxPrefixes { // lists that name each other grow without end
			return out, false
		}
		if inner, ok := s.inner(); ok && s.word(0) == "" {
			more, good := r.prefixes(inner, depth+1)
			out, clear = append(out, more...), clear && good
			continue
		}
		word := s.word(0)
		switch {
		case word == "any":
			out = append(out, "0.0.0.0/0", "::/0")
		case word == "none":
		case word == "localhost":
			out = append(out, "127.0.0.0/8", "::1")
		case word == "key":
			name := strings.TrimSuffix(strings.ToLower(s.word(1)), ".")
			if _, known := r.keys[name]; !known {
				clear = false
				continue
			}
			r.used[name] = true
			out = append(out, "0.0.0.0/0^"+name, "::/0^"+name)
		case r.acls[word] != nil:
			more, good := r.prefixes(r.acls[word], depth+1)
			out, clear = append(out, more...), clear && good
		default:
			if p, err := netip.ParsePrefix(word); err == nil {
				out = append(out, p.Masked().String())
			} else if a, err := netip.ParseAddr(word); err == nil {
				out = append(out, a.String())
			} else {
				clear = false // localnets, geoip, what is denied by !
			}
		}
	}
	return out, clear
}

// transfers sets who may transfer a zone, and who is told of it.
func (r *bindReader) transfers(p *bindPolicy, z bindZone) error {
	also, err := r.servers(z, "also-notify")
	if err != nil {
		return err
	}
	prefixes, clear := r.mayTransfer(z)
	switch {
	case !clear:
		p.tell("allow-transfer says more than a list of addresses and keys (a \"!\", or a word that has no equal): set server.outbound.provide-xfr-to yourself")
		prefixes = nil
	case len(prefixes) == 0:
		p.tell("allow-transfer is not set, or to nobody: here who may transfer a zone is always listed, see server.outbound.provide-xfr-to")
	}
	prefixes = append(prefixes, "127.0.0.0/8", "::1")
	for _, s := range also {
		host, key, signed := strings.Cut(s, "^")
		at, err := netip.ParseAddrPort(host)
		if err != nil {
			a, addrErr := netip.ParseAddr(host)
			if addrErr != nil {
				continue // over TLS
			}
			at = netip.AddrPortFrom(a, 53)
		}
		text := at.Addr().String()
		if signed {
			text += "^" + key
		}
		prefixes = append(prefixes, text)
	}
	var distinct []string
	for _, one := range prefixes {
		if !slices.Contains(distinct, one) {
			distinct = append(distinct, one)
		}
	}
	p.set("server.outbound.provide-xfr-to", tomlList(distinct), "")
	how := strings.ToLower(z.word("notify"))
	off := slices.Contains([]string{"no", "false", "0"}, how)
	if len(also) > 0 && !off {
		p.set("server.outbound.send-notify-to", tomlList(also), "")
	}
	if !off && how != "explicit" && how != "primary-only" && how != "master-only" {
		p.flag("server.outbound.notify-ns", true, "")
	}
	return nil
}
