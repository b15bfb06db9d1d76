package cli

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"

	urfave "github.com/urfave/cli/v2"

	"sluice/journal/event"
)

// version is what a package calls this program; the linker sets it (-X). Else
// the version follows from the build.
var version string

// versionInfo is what the build says of itself.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	// SHA256 is that of the executable file, and Software how events name both;
	// empty where the file cannot be read.
	SHA256   string `json:"sha256,omitempty"`
	Software string `json:"software,omitempty"`
}

func readVersion() versionInfo {
	v := versionInfo{Version: "(unknown)"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version, v.Go = cmp.Or(version, info.Main.Version), info.GoVersion
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

// binarySum is the SHA-256 of the file that this process runs, also where that
// was replaced meanwhile.
func binarySum() (sum event.Hash, err error) {
	const self = "/proc/self/exe"
	f, err := os.Open(self)
	if err != nil {
		return sum, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return event.Hash(h.Sum(nil)), nil
}

// softwareName is how events name this program; made when it is first asked for,
// since its file is large. It is the version alone where the file cannot be read.
func softwareName() func() string {
	return sync.OnceValue(func() string {
		version := readVersion().Version
		sum, err := binarySum()
		if err != nil {
			return version
		}
		return event.Software(version, sum)
	})
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
			if sum, err := binarySum(); err == nil {
				v.SHA256, v.Software = sum.String(), event.Software(v.Version, sum)
			}
			if e.json {
				return e.printJSON(v)
			}
			text := "sluice " + v.Version
			if v.Revision != "" {
				text += " (" + v.Revision + ")"
			}
			text += ", " + v.Go + "\n"
			if v.Software != "" {
				text += "in events: " + v.Software + "\n"
			}
			_, err := fmt.Fprint(e.stdout, text)
			return err
		},
	}
}
