package pipeline

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
)

// DSChange is the event that an observation gives cause for: nil where what
// counts is as known, or where nothing counts. Only what is validated does. A
// server that gives no such answer may hold what was known before. It is pure.
func DSChange(known *event.DSObserved, obs keymgr.Observation) *event.DSObserved {
	f := &event.DSObserved{Servers: uint64(len(obs.Parent)), Time: obs.At.Unix(), Sets: []event.DSSet{}}
	for _, s := range obs.Parent {
		if s.Error != "" || !s.Validated {
			f.Unreachable = append(f.Unreachable, serverText(s))
			continue
		}
		f.Sets = withSet(f.Sets, event.DSSet{DS: sortedDS(s.DS), TTL: s.DSTTL})
	}
	if len(f.Sets) == 0 {
		return nil
	}
	if known != nil && len(f.Unreachable) > 0 {
		for _, s := range known.Sets {
			f.Sets = withSet(f.Sets, s)
		}
	}
	slices.SortFunc(f.Sets, func(a, b event.DSSet) int { return slices.CompareFunc(a.DS, b.DS, compareDS) })
	same := known != nil && slices.EqualFunc(known.Sets, f.Sets, func(a, b event.DSSet) bool {
		return a.TTL == b.TTL && slices.Equal(a.DS, b.DS)
	})
	// That all servers have it now is worth an event, that one does not answer
	// is not.
	if same && (len(known.Unreachable) == 0 || len(f.Unreachable) > 0) {
		return nil
	}
	return f
}

// withSet adds a set to others that differ; of two that are alike the larger
// TTL stays.
func withSet(sets []event.DSSet, s event.DSSet) []event.DSSet {
	for i := range sets {
		if slices.Equal(sets[i].DS, s.DS) {
			sets[i].TTL = max(sets[i].TTL, s.TTL)
			return sets
		}
	}
	return append(sets, s)
}

func sortedDS(list []event.DS) []event.DS {
	list = slices.Clone(list)
	slices.SortFunc(list, compareDS)
	return list
}

func compareDS(a, b event.DS) int {
	return cmp.Or(cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Algorithm, b.Algorithm),
		cmp.Compare(a.DigestType, b.DigestType), strings.Compare(a.Digest, b.Digest))
}

// serverText names a server by name and address.
func serverText(s keymgr.Seen) string {
	if !s.Address.IsValid() || s.Server == s.Address.String() {
		return s.Server
	}
	return s.Server + " at " + s.Address.String()
}

// dsText names DS records by their tags and algorithms.
func dsText(list []event.DS) string {
	if len(list) == 0 {
		return "no DS"
	}
	parts := make([]string, 0, len(list))
	for _, ds := range list {
		parts = append(parts, fmt.Sprintf("%d (algorithm %d, digest type %d)", ds.Tag, ds.Algorithm, ds.DigestType))
	}
	return "DS " + strings.Join(parts, ", ")
}

// observedText tells what the parent has.
func observedText(f *event.DSObserved) string {
	sets := make([]string, 0, len(f.Sets))
	for _, s := range f.Sets {
		text := dsText(s.DS)
		if len(s.DS) > 0 {
			text += ", TTL " + SpanText(time.Duration(s.TTL)*time.Second)
		}
		sets = append(sets, text)
	}
	text := "the parent has " + strings.Join(sets, "; on other servers, or lately, ")
	switch {
	case f.Servers == 0:
		text += ", as reported"
	case len(f.Unreachable) > 0:
		text += fmt.Sprintf("; %d of %d servers gave no answer that counts: %s", len(f.Unreachable), f.Servers, strings.Join(f.Unreachable, ", "))
	default:
		text += fmt.Sprintf(", seen at all %d servers", f.Servers)
	}
	return text
}
