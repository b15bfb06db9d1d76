package cli

import (
	"fmt"
	"runtime/debug"

	urfave "github.com/urfave/cli/v2"
)

// versionInfo is what the build says of itself.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
}

func readVersion() versionInfo {
	v := versionInfo{Version: "(unknown)"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version, v.Go = info.Main.Version, info.GoVersion
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func versionCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:  "version",
		Usage: "print the version of this program",
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			v := readVersion()
			if e.json {
				return e.printJSON(v)
			}
			text := "sluice " + v.Version
			if v.Revision != "" {
				text += " (" + v.Revision + ")"
			}
			_, err := fmt.Fprintf(e.stdout, "%s, %s\n", text, v.Go)
			return err
		},
	}
}
