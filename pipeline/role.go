package pipeline

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"sluice/journal/event"
)

// Role is a part of the work on zones that a worker can take on.
type Role string

// The roles of workers.
const (
	RoleLoad    Role = "load"    // reads sources
	RoleReview  Role = "review"  // runs built-in checks and hooks
	RoleSign    Role = "sign"    // makes signatures
	RoleKeys    Role = "keys"    // binds policies, keeps keys, drives rollovers, tells the parent
	RoleObserve Role = "observe" // asks the world's servers for those with keys
	RolePublish Role = "publish" // lets versions out and tells secondaries
)

// AllRoles are the roles of workers in the order of a zone's way.
func AllRoles() []Role {
	return []Role{RoleLoad, RoleReview, RoleSign, RoleKeys, RoleObserve, RolePublish}
}

// ownedRoles are those whose work in a partition has one owner at a time.
func ownedRoles() []Role { return []Role{RoleLoad, RoleReview, RoleSign, RoleKeys, RolePublish} }

// ParseRoles reads roles that are separated by commas; "all" and "" are all of
// them.
func ParseRoles(list string) ([]Role, error) {
	if list == "" || list == "all" {
		return AllRoles(), nil
	}
	var out []Role
	for word := range strings.SplitSeq(list, ",") {
		r := Role(strings.TrimSpace(word))
		if !slices.Contains(AllRoles(), r) {
			return nil, fmt.Errorf("%w: role %q is none of %s", ErrInvalid, r, roleWords(AllRoles()))
		}
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out, nil
}

// roleWords lists roles for people.
func roleWords(roles []Role) string {
	words := make([]string, 0, len(roles))
	for _, r := range roles {
		words = append(words, string(r))
	}
	return strings.Join(words, ", ")
}

// Partitions is into how many parts the zones are divided among workers.
const Partitions = 64

// PartitionOf is the partition that a zone's work belongs to, FNV-1a of its id
// modulo Partitions. It never changes.
func PartitionOf(id event.ZoneID) int {
	h := fnv.New32a()
	h.Write([]byte(id))
	return int(h.Sum32() % Partitions)
}

// RoleOf is the role whose work a command is.
func RoleOf(c Command) Role {
	switch c.(type) {
	case Load, Rollback, ApplyUpdates:
		return RoleLoad
	case OpenReview, RunHook, CloseReview:
		return RoleReview
	case Sign:
		return RoleSign
	case Publish:
		return RolePublish
	case BindPolicy, GenerateKeys, ActivateKeys, AdoptKeys, HandKeys, BeginRollover, AdvanceRollover, DestroyKeys, ChangeCDS,
		RunParentHook, PushDS, PushSignal, NotifyParent:
	}
	return RoleKeys
}

// RoleOfEvent is the role that events of such facts belong to; empty where
// they belong to none, and any worker may write them.
func RoleOfEvent(f event.Facts) Role {
	switch f := f.(type) {
	case *event.InstanceLoaded, *event.LoadFailed, *event.UpdateAccepted:
		return RoleLoad
	case *event.ReviewRequested, *event.ReviewApproved, *event.ReviewRejected, *event.InstanceAbandoned, *event.ZoneHalted:
		return RoleReview
	case *event.SignFailed:
		if f.WorkerRole != "" {
			return Role(f.WorkerRole)
		}
		return RoleSign
	case *event.InstanceSigned:
		return RoleSign
	case *event.InstancePublished:
		return RolePublish
	case *event.WorkerGranted:
		return Role(f.WorkerRole)
	case *event.WorkerQuarantined:
		return Role(f.WorkerRole)
	}
	return keysRoleOf(f)
}

// keysRoleOf is RoleKeys for the facts of those who keep keys.
func keysRoleOf(f event.Facts) Role {
	switch f.(type) {
	case *event.PolicyBound, *event.KeyImported, *event.KeyGenerated, *event.KeyActivated, *event.KeyAdopted, *event.KeyDestroyed, *event.KeyProved,
		*event.KeyIntroduced, *event.KeyPublished, *event.KeyRetired, *event.KeyRemoved, *event.KeyWithdrawn,
		*event.RolloverStarted, *event.RolloverAdvanced, *event.RolloverCompleted, *event.RolloverAborted,
		*event.CDSChanged, *event.DSObserved, *event.DSSubmitted, *event.DSWithdrawn, *event.HookRan,
		*event.DSPushed, *event.DSNotified, *event.SignalPushed:
		return RoleKeys
	}
	return ""
}
