package cli

import (
	"context"
	"slices"
	"strings"

	"sluice/cli/api"
	"sluice/cli/dane"
	"sluice/pipeline"
)

// fixed are values that the program knows.
func fixed(list ...string) []candidate {
	found := make([]candidate, len(list))
	for i, w := range list {
		found[i] = candidate{text: w}
	}
	return found
}

// flagValues lists what may be the value of a flag of the command on path;
// nothing where it may be a file, or anything.
func (e *env) flagValues(ctx context.Context, path []string, flag string) []candidate {
	command := strings.Join(path, " ")
	switch flag {
	case "log-level":
		return logLevels()
	case "policy":
		if command != "simulate" {
			return e.policyNames(ctx)
		}
	case "algorithm":
		return fixed("ECDSAP256SHA256", "ECDSAP384SHA384", "ED25519", "ED448", "RSASHA256", "RSASHA512")
	case "role":
		switch path[0] {
		case "token":
			return listed(api.Roles())
		case "key":
			return fixed("ksk", "zsk", "csk")
		}
	case "roles":
		return listed(pipeline.AllRoles())
	case "keystore":
		return e.keystoreNames(ctx)
	case "state":
		var all []string
		for _, s := range pipeline.ZoneStates() {
			if !strings.Contains(s, " ") {
				all = append(all, s)
			}
		}
		return fixed(all...)
	case "notices":
		return append(fixed("info", "warning", "alarm"), listed(pipeline.NoticeCodes())...)
	}
	return fixed(fixedValues()[command+" --"+flag]...)
}

// fixedValues are those of flags whose meaning differs from command to command.
func fixedValues() map[string][]string {
	return map[string][]string{
		"audit report --format": {"md", "csv"},
		"key ds --format":       {"ds", "cds", "cdnskey", "dnskey", "signal"},
		"key roll --method":     {"pre-publication", "double-signature", "double-ksk", "double-ds", "double-rrset"},
		"signzone --denial":     {"nsec", "nsec3", "nsec3-opt-out"},
		"tsig export --format":  {"bind", "knot", "nsd", "dig"},
		"tlsa check --proto":    {"tcp", "udp", "sctp"},
		"tlsa check --starttls": dane.Protocols(),
		"tlsa make --proto":     {"tcp", "udp", "sctp"},
		"tlsa make --starttls":  dane.Protocols(),
		"tlsa make --usage":     {"0", "1", "2", "3"},
		"tlsa make --selector":  {"0", "1"},
		"tlsa make --matching":  {"0", "1", "2"},
	}
}

// argumentValues lists what may be the argument behind given ones.
func (e *env) argumentValues(ctx context.Context, path, given []string) []candidate {
	switch command := strings.Join(path, " "); {
	case command == "key roll" && len(given) == 1:
		return fixed("zsk", "ksk", "csk", "algorithm", "secure", "insecure")
	case len(given) > 0:
		return nil
	case command == "log-level":
		return logLevels()
	case command == "policy show" || command == "policy diff":
		return e.policyNames(ctx)
	case command == "token remove":
		return e.named(ctx, func(ctx context.Context, client *api.Client) ([]string, error) {
			all, err := client.Tokens(ctx)
			return names(all, func(t pipeline.TokenInfo) string { return t.Name }), err
		})
	case slices.Contains([]string{"tsig remove", "tsig export"}, command):
		return e.named(ctx, func(ctx context.Context, client *api.Client) ([]string, error) {
			all, err := client.TSIGKeys(ctx)
			return names(all, func(k pipeline.TSIGKey) string { return k.Name }), err
		})
	case slices.Contains([]string{"keystore show", "keystore test", "keystore remove"}, command):
		return e.keystoreNames(ctx)
	case slices.Contains([]string{"catalog show", "catalog set", "catalog approve", "catalog remove"}, command):
		return e.named(ctx, func(ctx context.Context, client *api.Client) ([]string, error) {
			all, err := client.Catalogs(ctx)
			return names(all, func(c pipeline.CatalogStatus) string { return c.Name }), err
		})
	}
	return nil
}

func logLevels() []candidate { return fixed("debug", "info", "warn", "error") }

func listed[T ~string](all []T) []candidate {
	return fixed(names(all, func(v T) string { return string(v) })...)
}

func names[T any](all []T, name func(T) string) []string {
	out := make([]string, len(all))
	for i, v := range all {
		out[i] = name(v)
	}
	return out
}

func (e *env) policyNames(ctx context.Context) []candidate {
	return e.named(ctx, func(ctx context.Context, client *api.Client) ([]string, error) {
		all, err := client.Policies(ctx)
		return names(all, func(p pipeline.PolicyInfo) string { return p.Name }), err
	})
}

func (e *env) keystoreNames(ctx context.Context) []candidate {
	return e.named(ctx, func(ctx context.Context, client *api.Client) ([]string, error) {
		all, err := client.Keystores(ctx)
		return names(all, func(k pipeline.KeystoreInfo) string { return k.Name }), err
	})
}

// named asks the daemon for names; without one there are none.
func (e *env) named(ctx context.Context, ask func(context.Context, *api.Client) ([]string, error)) []candidate {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	var found []candidate
	_ = e.clientAction(func(client *api.Client) error { // a person who completes wants no error
		all, err := ask(ctx, client)
		found = fixed(all...)
		return err
	})
	return found
}
