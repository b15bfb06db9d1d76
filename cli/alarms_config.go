package cli

import (
	"fmt"
	"time"

	"sluice/pipeline/alarm"
)

// alarmsConfig is who is told of what needs a person.
type alarmsConfig struct {
	Command           string   `toml:"command"`
	Webhook           string   `toml:"webhook"`
	WebhookTokenFile  string   `toml:"webhook-token-file"`
	WebhookSecretFile string   `toml:"webhook-secret-file"`
	WebhookRoots      string   `toml:"webhook-roots"`
	Timeout           duration `toml:"timeout"`
	MinSeverity       string   `toml:"min-severity"`
	Delay             duration `toml:"delay"`
	Repeat            duration `toml:"repeat"`
	MaxAtOnce         int      `toml:"max-at-once"`
}

func defaultAlarms() alarmsConfig {
	return alarmsConfig{Timeout: duration(30 * time.Second), MinSeverity: "warning", Delay: duration(time.Minute), MaxAtOnce: 10}
}

// check finds values that cannot work; nil where there are none.
func (a alarmsConfig) check() *badValue {
	if a.Webhook != "" {
		if err := alarm.CheckURL(a.Webhook); err != nil {
			return &badValue{key: "alarms.webhook", text: "webhook: " + err.Error()}
		}
	} else if a.WebhookTokenFile != "" || a.WebhookSecretFile != "" || a.WebhookRoots != "" {
		return &badValue{key: "alarms.webhook", text: "webhook-token-file, webhook-secret-file and webhook-roots belong to a webhook: name one"}
	}
	switch {
	case a.MinSeverity != "warning" && a.MinSeverity != "alarm":
		return &badValue{key: "alarms.min-severity", text: fmt.Sprintf("min-severity = %q: want warning or alarm", a.MinSeverity)}
	case time.Duration(a.Timeout) < time.Second || time.Duration(a.Timeout) > 10*time.Minute:
		return &badValue{key: "alarms.timeout", text: "timeout: want 1s to 10m"}
	case time.Duration(a.Delay) < 0 || time.Duration(a.Delay) > 24*time.Hour:
		return &badValue{key: "alarms.delay", text: "delay: want at most a day"}
	case a.Repeat != 0 && time.Duration(a.Repeat) < time.Minute:
		return &badValue{key: "alarms.repeat", text: `repeat: want at least a minute, or "0" for never`}
	case a.MaxAtOnce < 1:
		return &badValue{key: "alarms.max-at-once", text: fmt.Sprintf("max-at-once = %d: want a number above 0", a.MaxAtOnce)}
	}
	return nil
}

// alarms is that as the engine takes it.
func (a alarmsConfig) alarms() alarm.Config {
	return alarm.Config{
		Command: a.Command, Timeout: time.Duration(a.Timeout),
		Webhook: alarm.Webhook{
			URL: a.Webhook, TokenFile: a.WebhookTokenFile, SecretFile: a.WebhookSecretFile, Roots: a.WebhookRoots,
		},
		MinSeverity: a.MinSeverity, Delay: time.Duration(a.Delay), Repeat: time.Duration(a.Repeat), Most: a.MaxAtOnce,
	}
}
