package event

import (
	"encoding/hex"
)

// softwareDigits is how many hex digits of the SHA-256 of an executable file
// stand in events: 64 bits tell any two builds apart that somebody did not make
// to look alike, and a line stays short.
const softwareDigits = 16

// Software names the software of a process as events do: its version, a slash,
// and the first 16 hex digits of the SHA-256 of its executable file. So whoever
// has the file can tell that it is the one (sha256sum), whatever its version
// says.
func Software(version string, binary Hash) string {
	return version + "/" + hex.EncodeToString(binary[:])[:softwareDigits]
}

// SoftwareOf is the software that a fact names as its maker; empty where it
// names none.
func SoftwareOf(f Facts) string {
	switch f := f.(type) {
	case *InstanceLoaded:
		return f.Software
	case *InstanceSigned:
		return f.Software
	case *InstancePublished:
		return f.Software
	}
	return ""
}
