package event

import (
	"maps"
	"slices"
	"sync"
)

// registered is the only list of the types of facts. A wire name stays for
// ever: new optional fields keep it, a changed meaning takes a new name and
// the old type stays for decoding.
func registered() []func() Facts {
	return append(registeredZones(),
		func() Facts { return new(AccessGranted) },
		func() Facts { return new(AccessRefused) },
		func() Facts { return new(AccessUsed) },
		func() Facts { return new(AccessWithdrawn) },
		func() Facts { return new(BulkPurged) },
		func() Facts { return new(BulkSwept) },
		func() Facts { return new(CDSChanged) },
		func() Facts { return new(ClockAccepted) },
		func() Facts { return new(ClockDoubted) },
		func() Facts { return new(DSNotified) },
		func() Facts { return new(DSObserved) },
		func() Facts { return new(DSPushed) },
		func() Facts { return new(DSSubmitted) },
		func() Facts { return new(DSWithdrawn) },
		func() Facts { return new(HookRan) },
		func() Facts { return new(InstanceAbandoned) },
		func() Facts { return new(InstanceFetched) },
		func() Facts { return new(InstanceLoaded) },
		func() Facts { return new(InstancePublished) },
		func() Facts { return new(InstanceSigned) },
		func() Facts { return new(JournalBackedUp) },
		func() Facts { return new(JournalCheckpointed) },
		func() Facts { return new(JournalContinued) },
		func() Facts { return new(JournalCosigned) },
		func() Facts { return new(JournalExported) },
		func() Facts { return new(KeyActivated) },
		func() Facts { return new(KeyAdopted) },
		func() Facts { return new(KeyBackedUp) },
		func() Facts { return new(KeyDestroyed) },
		func() Facts { return new(KeyExported) },
		func() Facts { return new(KeyGenerated) },
		func() Facts { return new(KeyImported) },
		func() Facts { return new(KeyIntroduced) },
		func() Facts { return new(KeyProved) },
		func() Facts { return new(KeyPublished) },
		func() Facts { return new(KeyRemoved) },
		func() Facts { return new(KeyRetired) },
		func() Facts { return new(KeyWithdrawn) },
		func() Facts { return new(KeystoreAdded) },
		func() Facts { return new(KeystoreRemoved) },
		func() Facts { return new(LoadFailed) },
		func() Facts { return new(MaintenanceChanged) },
		func() Facts { return new(PolicyBound) },
		func() Facts { return new(SerialRaised) },
		func() Facts { return new(ReviewApproved) },
		func() Facts { return new(ReviewOverridden) },
		func() Facts { return new(ReviewProposed) },
		func() Facts { return new(ReviewRecalled) },
		func() Facts { return new(ReviewRejected) },
		func() Facts { return new(ReviewRequested) },
		func() Facts { return new(RolloverAborted) },
		func() Facts { return new(RolloverAdvanced) },
		func() Facts { return new(RolloverCompleted) },
		func() Facts { return new(RolloverStarted) },
		func() Facts { return new(SignFailed) },
		func() Facts { return new(SignalPushed) },
		func() Facts { return new(SnapshotTaken) },
		func() Facts { return new(TSIGAdded) },
		func() Facts { return new(TSIGExported) },
		func() Facts { return new(TSIGRemoved) },
		func() Facts { return new(UpdateAccepted) },
		func() Facts { return new(WorkerEnrolled) },
		func() Facts { return new(WorkerGranted) },
		func() Facts { return new(WorkerQuarantined) },
		func() Facts { return new(WorkerRemoved) },
	)
}

// registeredZones is those of it that say that a zone is there, and how it stands.
func registeredZones() []func() Facts {
	return append(catalogTypes(), []func() Facts{
		func() Facts { return new(ZoneAdded) },
		func() Facts { return new(ZoneChanged) },
		func() Facts { return new(ZoneHalted) },
		func() Facts { return new(ZoneHeld) },
		func() Facts { return new(ZoneReleased) },
		func() Facts { return new(ZoneRemoved) },
		func() Facts { return new(ZoneReset) },
	}...)
}

// byName indexes registered by wire name; it never changes.
//
//nolint:gochecknoglobals // made once from a constant list
var byName = sync.OnceValue(func() map[string]func() Facts {
	m := make(map[string]func() Facts)
	for _, f := range registered() {
		m[f().EventType()] = f
	}
	return m
})

// Types lists the wire names that this program knows, sorted.
func Types() []string { return slices.Sorted(maps.Keys(byName())) }

// NewFacts returns empty facts for a wire name, nil if it is unknown.
func NewFacts(wire string) Facts {
	if f := byName()[wire]; f != nil {
		return f()
	}
	return nil
}

// Manifests returns the manifests of chunks that an event commits.
func Manifests(f Facts) []Manifest {
	switch f := f.(type) {
	case *InstanceLoaded:
		return []Manifest{f.Manifest}
	case *InstanceSigned:
		return []Manifest{f.Manifest}
	case *UpdateAccepted:
		return []Manifest{f.Manifest}
	case *SnapshotTaken:
		return f.manifests()
	default:
		return nil
	}
}
