package event

import "strings"

// OfKeys reports whether events of a type are about a zone's keys, its
// rollovers or its parent: what its set of keys is folded from.
func OfKeys(eventType string) bool {
	noun, _, _ := strings.Cut(eventType, ".")
	switch noun {
	case "key", "rollover", "ds", "cds", "hook":
		return true
	}
	return false
}

// Concerned is the zone that facts of the whole instance are about; "" where
// they are about none.
func Concerned(f Facts) ZoneID {
	switch f := f.(type) {
	case *ZoneAdded:
		return f.ID
	case *ZoneRemoved:
		return f.ID
	case *CatalogAdded:
		return f.ID
	case *CatalogChanged:
		return f.ID
	case *CatalogRemoved:
		return f.ID
	}
	return ""
}
