package pipeline

import (
	"slices"
	"strings"

	"sluice/journal/event"
	"sluice/keymgr"
)

// HandKeys has workers prove keys, and hands them the private parts where these
// are in files.
type HandKeys struct {
	To []Handing
}

// Handing is what one worker is to prove.
type Handing struct {
	Worker string
	NKey   string // as which it is enrolled
	IDs    []string
}

// Lane implements Command.
func (HandKeys) Lane() Lane { return ShareLane }

// Identity implements Command.
func (c HandKeys) Identity() string { return identity("hand keys", c) }

func (HandKeys) command() {}

// Workers is what a decision sees of the other workers on the stream.
type Workers struct {
	// Provers is those that are to prove each key before it is put to use.
	Provers []keymgr.Prover
	// Living is the names of those that can be asked now, this one among them.
	Living []string
}

// proversOf is the workers that are to prove the keys of all zones, as the
// process own sees it: those that sign or keep keys. Where that is own alone, the
// proof that a key gives before it is put to use is enough.
func proversOf(workers map[string]Enrolled, own string) []keymgr.Prover {
	var out []keymgr.Prover
	for name, w := range workers {
		if keepsKeys(w) {
			out = append(out, keymgr.Prover{Worker: name, NKey: w.NKey})
		}
	}
	if len(out) == 1 && out[0].Worker == own {
		return nil
	}
	slices.SortFunc(out, func(a, b keymgr.Prover) int { return strings.Compare(a.Worker, b.Worker) })
	return out
}

// keepsKeys reports whether a worker may have private keys.
func keepsKeys(w Enrolled) bool {
	return slices.Contains(w.Roles, workerSigns) || slices.Contains(w.Roles, workerKeys)
}

// keepsTSIG reports whether a worker may have TSIG secrets: who transfers in or
// out, and who tells parents.
func keepsTSIG(w Enrolled) bool {
	return slices.ContainsFunc(w.Roles, func(r string) bool { return r == workerLoads || r == workerPublishes || r == workerKeys })
}

// The roles of workers that secrets are for.
const (
	workerLoads     = "load"
	workerSigns     = "sign"
	workerKeys      = "keys"
	workerPublishes = "publish"
)

// decideShare has the workers that can be asked prove what they have not.
func decideShare(s State, p Policy, m Moment) Command {
	if p.Mode() != ModeSign {
		return nil
	}
	var c HandKeys
	for _, prover := range m.Workers.Provers {
		if ids := toProve(s.Keys, prover); len(ids) > 0 && slices.Contains(m.Workers.Living, prover.Worker) {
			c.To = append(c.To, Handing{Worker: prover.Worker, NKey: prover.NKey, IDs: ids})
		}
	}
	if len(c.To) == 0 {
		return nil
	}
	return c
}

// toProve is the IDs of the keys that a worker has not proved, those included
// that sign already: it is to be able to sign as others do.
func toProve(ks keymgr.KeySet, prover keymgr.Prover) []string {
	var out []string
	for _, k := range ks.Keys {
		if !k.Foreign && k.State != keymgr.Removed && !k.ProvedBy(prover) {
			out = append(out, k.ID)
		}
	}
	return out
}

// provedFact says that a worker proved those of the keys that it had not proved
// before; nil where there are none, or where it is not enrolled so any more.
func provedFact(s State, provers []keymgr.Prover, worker string, ids []string) event.Facts {
	i := slices.IndexFunc(provers, func(p keymgr.Prover) bool { return p.Worker == worker })
	if i < 0 {
		return nil
	}
	lacks := toProve(s.Keys, provers[i])
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !slices.Contains(lacks, id) })
	if len(ids) == 0 {
		return nil
	}
	return &event.KeyProved{IDs: ids, Worker: worker, NKey: provers[i].NKey}
}

// proofNotices tells for whom keys wait.
func proofNotices(s State, p Policy, m Moment) []Notice {
	if p.Mode() != ModeSign {
		return nil
	}
	var out []Notice
	if len(m.Lacks) > 0 {
		out = append(out, Notice{
			Severity: severityWarning, Code: NoticeKeysLacking, Text: "this process does not sign the zone: it lacks the private parts of " + strings.Join(m.Lacks, ", ") + ", and has asked for them",
			Hint: "sluice key distribute " + s.Name + ", where a process with the role keys runs",
		})
	}
	var waiting []string
	for _, k := range s.Keys.Keys {
		if k.State == keymgr.Generated || k.State == keymgr.Published {
			waiting = append(waiting, k.ID)
		}
	}
	unproved := s.Keys.Unproved(waiting, m.Workers.Provers)
	if len(unproved) == 0 {
		return out
	}
	n := Notice{Severity: severityInfo, Code: NoticeKeysUnproved, Text: "keys are not put to use yet: " + keymgr.UnprovedText(unproved)}
	if len(s.Keys.Signing()) == 0 {
		n.Severity, n.Text = severityWarning, "the zone is not signed yet: "+keymgr.UnprovedText(unproved)
	}
	for worker := range unproved {
		if !slices.Contains(m.Workers.Living, worker) {
			n.Severity = severityWarning
		}
	}
	n.Hint = "sluice worker list"
	return append(out, n)
}
