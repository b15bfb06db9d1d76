package cli

import (
	"strings"

	urfave "github.com/urfave/cli/v2"
)

// configOf is the config of a process that works on zones: what its file says,
// with its flags over that.
func configOf(c *urfave.Context) (config, error) {
	cfg := defaultConfig()
	if path := c.String("config"); path != "" {
		var err error
		if cfg, err = readConfig(path); err != nil {
			return cfg, err
		}
	}
	if c.IsSet("listen") {
		cfg.Server.Servers = c.StringSlice("listen")
	}
	if c.IsSet("http") {
		cfg.HTTP.Servers = c.StringSlice("http")
	}
	if c.IsSet("listen-tls") {
		cfg.Server.TLS.Servers = c.StringSlice("listen-tls")
	}
	for flag, to := range map[string]*string{
		"data": &cfg.DataDir, "policy-dir": &cfg.PolicyDir,
		"tls-cert": &cfg.Server.TLS.Certificate, "tls-key": &cfg.Server.TLS.Key,
	} {
		if c.IsSet(flag) {
			*to = c.String(flag)
		}
	}
	for flag, to := range map[string]*[]string{
		"review-loaded": &cfg.Loader.Review.Servers, "review-signed": &cfg.Signer.Review.Servers,
	} {
		if c.IsSet(flag) {
			if *to = nil; c.String(flag) != "" {
				*to = []string{c.String(flag)}
			}
		}
	}
	if c.IsSet("log-level") {
		if err := cfg.Daemon.LogLevel.UnmarshalText([]byte(strings.ToLower(c.String("log-level")))); err != nil {
			return cfg, usagef("%v", err)
		}
	}
	if bad := cfg.check(); bad != nil {
		return cfg, usagef("%v", bad)
	}
	return cfg, nil
}
