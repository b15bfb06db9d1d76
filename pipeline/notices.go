package pipeline

import (
	"slices"
	"time"
)

// Severities of a Notice. Info asks for nothing. Of a warning somebody should
// know: something waits for a person, or will not go well for ever. An alarm
// is about what is broken, or soon will be.
const (
	severityInfo    = "info"
	severityWarning = "warning"
	severityAlarm   = "alarm"
)

// NoticeCode names a kind of notice for programs. Codes are a closed list and
// keep their meaning; cli/docs/notices.md tells each.
type NoticeCode string

// The codes of notices about a zone.
const (
	NoticeInput             NoticeCode = "input-notice"
	NoticeLoadFailed        NoticeCode = "load-failed"
	NoticeSignFailed        NoticeCode = "sign-failed"
	NoticeWorkFailed        NoticeCode = "work-failed"
	NoticeZoneBroken        NoticeCode = "zone-broken"
	NoticeExpiryNear        NoticeCode = "expiry-near"
	NoticeSourceUnreachable NoticeCode = "source-unreachable"
	NoticeSourceExpired     NoticeCode = "source-expired"
	NoticeSourceBehind      NoticeCode = "source-behind"
	NoticeSourceSignatures  NoticeCode = "source-signatures-end"
	NoticeSerialNotKept     NoticeCode = "serial-not-kept"
	NoticeModePending       NoticeCode = "mode-pending"
	NoticeMaintenance       NoticeCode = "maintenance"
	NoticeHeld              NoticeCode = "held"
	NoticeUpdatesRefused    NoticeCode = "updates-refused"
	NoticeUpdatesWait       NoticeCode = "updates-wait"
	NoticeUpdatesLost       NoticeCode = "updates-unreadable"
	NoticeReleasePending    NoticeCode = "release-pending"
	NoticeReviewWaits       NoticeCode = "review-waits"
	NoticeReviewHalted      NoticeCode = "review-halted"
	NoticeProposed          NoticeCode = "proposed"
	NoticeLoadedDropped     NoticeCode = "loaded-dropped"
	NoticeSignedDropped     NoticeCode = "signed-dropped"
	NoticeRefreshDropped    NoticeCode = "refresh-dropped"
	NoticeRoleRests         NoticeCode = "role-rests"
	NoticeRoleUnheld        NoticeCode = "role-unheld"
	NoticePassedOver        NoticeCode = "events-passed-over"
	NoticeKeystoreDown      NoticeCode = "keystore-down"
	NoticeKeysMissing       NoticeCode = "keys-missing"
	NoticeKeysLacking       NoticeCode = "keys-lacking"
	NoticeKeysUnproved      NoticeCode = "keys-unproved"
	NoticeKeysDiffer        NoticeCode = "keys-differ"
	NoticeAlgorithmDiffers  NoticeCode = "algorithm-differs"
	NoticeBackupWanted      NoticeCode = "backup-wanted"
	NoticeForeignAlgorithm  NoticeCode = "foreign-algorithm"
	NoticeForeignLacksKeys  NoticeCode = "foreign-lacks-keys"
	NoticeRolloverDue       NoticeCode = "rollover-due"
	NoticeRolloverPerson    NoticeCode = "rollover-person"
	NoticeRolloverBlocked   NoticeCode = "rollover-blocked"
	NoticeRolloverBackup    NoticeCode = "rollover-backup"
	NoticeRolloverProof     NoticeCode = "rollover-proof"
	NoticeServerSilent      NoticeCode = "server-silent"
	NoticeServerKeysDiffer  NoticeCode = "server-keys-differ"
	NoticeServerBogus       NoticeCode = "server-bogus"
	NoticeServerCDSDiffers  NoticeCode = "server-cds-differs"
	NoticeParentUnknown     NoticeCode = "parent-unknown"
	NoticeParentSilent      NoticeCode = "parent-silent"
	NoticeParentUnsigned    NoticeCode = "parent-unsigned"
	NoticeParentUnproved    NoticeCode = "parent-unproved"
	NoticeParentNotTold     NoticeCode = "parent-not-told"
	NoticeResolverBogus     NoticeCode = "resolver-bogus"
	NoticeResolverInsecure  NoticeCode = "resolver-insecure"
	NoticeResolverFails     NoticeCode = "resolver-fails"
	NoticeResolverSilent    NoticeCode = "resolver-silent"
	NoticeDSMismatch        NoticeCode = "ds-mismatch"
	NoticeDSStale           NoticeCode = "ds-stale"
	NoticeDSUnknown         NoticeCode = "ds-unknown"
	NoticeDSAlgorithm       NoticeCode = "ds-algorithm"
	NoticeCatalogHeld       NoticeCode = "catalog-held"
	NoticeCatalogConflict   NoticeCode = "catalog-conflict"
	NoticeCatalogGroup      NoticeCode = "catalog-group"
	NoticeCatalogMember     NoticeCode = "catalog-member"
	NoticeCatalogRemoval    NoticeCode = "catalog-removal"
)

// The codes of notices about a process; status of every zone tells them too,
// where they keep it from working.
const (
	NoticeClockDoubted   NoticeCode = "clock-doubted"
	NoticeJournalCutOff  NoticeCode = "journal-cut-off"
	NoticeJournalFault   NoticeCode = "journal-fault"
	NoticeJournalFull    NoticeCode = "journal-full"
	NoticeJournalFilling NoticeCode = "journal-filling"
	NoticeDiskFull       NoticeCode = "disk-full"
	NoticeProjection     NoticeCode = "projection-fault"
	NoticeFoldFault      NoticeCode = "fold-fault"
	NoticeReserveShort   NoticeCode = "reserve-short"
	NoticeEventsLost     NoticeCode = "events-lost"
	NoticeInstanceBroken NoticeCode = "instance-broken"
	NoticePolicyFault    NoticeCode = "policy-not-loaded"
	NoticeSealFailed     NoticeCode = "seal-failed"
	NoticeWorkerSilent   NoticeCode = "worker-silent"
	NoticeAlarmNotSent   NoticeCode = "alarm-not-sent"
	NoticeCertificate    NoticeCode = "certificate"
)

// NoticeCodes lists all codes, sorted.
func NoticeCodes() []NoticeCode {
	return slices.Sorted(slices.Values(slices.Concat(zoneNotices(), processNotices())))
}

// ProcessNotice reports whether notices with a code are about the process that
// tells them, not about the zone that they stand with.
func ProcessNotice(code NoticeCode) bool { return slices.Contains(processNotices(), code) }

func processNotices() []NoticeCode {
	return []NoticeCode{
		NoticeClockDoubted, NoticeJournalCutOff, NoticeJournalFault, NoticeJournalFull, NoticeJournalFilling, NoticeDiskFull,
		NoticeProjection, NoticeFoldFault, NoticeReserveShort, NoticeEventsLost, NoticeInstanceBroken, NoticePolicyFault, NoticeSealFailed, NoticeWorkerSilent, NoticeAlarmNotSent,
		NoticeCertificate,
	}
}

func zoneNotices() []NoticeCode {
	return []NoticeCode{
		NoticeInput, NoticeLoadFailed, NoticeSignFailed, NoticeWorkFailed, NoticeZoneBroken, NoticeExpiryNear,
		NoticeSourceUnreachable, NoticeSourceExpired, NoticeSourceBehind, NoticeSourceSignatures, NoticeSerialNotKept, NoticeModePending,
		NoticeMaintenance, NoticeHeld, NoticeUpdatesRefused, NoticeUpdatesWait, NoticeUpdatesLost, NoticeReleasePending, NoticeReviewWaits, NoticeReviewHalted, NoticeProposed, NoticeLoadedDropped, NoticeSignedDropped,
		NoticeRefreshDropped, NoticeRoleRests, NoticeRoleUnheld, NoticePassedOver, NoticeKeystoreDown, NoticeKeysMissing, NoticeKeysLacking,
		NoticeKeysUnproved, NoticeKeysDiffer, NoticeAlgorithmDiffers, NoticeBackupWanted, NoticeForeignAlgorithm, NoticeForeignLacksKeys,
		NoticeRolloverDue, NoticeRolloverPerson, NoticeRolloverBlocked, NoticeRolloverBackup, NoticeRolloverProof, NoticeServerSilent,
		NoticeServerKeysDiffer, NoticeServerBogus, NoticeServerCDSDiffers, NoticeParentUnknown, NoticeParentSilent, NoticeParentUnsigned,
		NoticeParentUnproved, NoticeParentNotTold, NoticeResolverBogus, NoticeResolverInsecure, NoticeResolverFails, NoticeResolverSilent,
		NoticeDSMismatch, NoticeDSStale, NoticeDSUnknown, NoticeDSAlgorithm,
		NoticeCatalogHeld, NoticeCatalogConflict, NoticeCatalogGroup, NoticeCatalogMember, NoticeCatalogRemoval,
	}
}

// Topic is the page of the manual that says most about what a code tells.
func (c NoticeCode) Topic() string {
	switch c {
	case NoticeReviewWaits, NoticeReviewHalted, NoticeLoadedDropped, NoticeSignedDropped, NoticeRefreshDropped:
		return "review"
	case NoticeRoleRests, NoticeRoleUnheld, NoticePassedOver, NoticeKeysLacking, NoticeKeysUnproved, NoticeRolloverProof, NoticeJournalCutOff, NoticeWorkerSilent:
		return "workers"
	case NoticeKeystoreDown, NoticeKeysDiffer, NoticeAlgorithmDiffers, NoticeBackupWanted, NoticeRolloverDue, NoticeRolloverPerson,
		NoticeRolloverBlocked, NoticeRolloverBackup, NoticeForeignAlgorithm, NoticeForeignLacksKeys:
		return "keys"
	case NoticeParentNotTold, NoticeParentUnknown, NoticeParentSilent, NoticeParentUnsigned, NoticeParentUnproved, NoticeServerCDSDiffers,
		NoticeDSMismatch, NoticeDSStale, NoticeDSUnknown, NoticeDSAlgorithm:
		return "parents"
	case NoticeCatalogHeld, NoticeCatalogConflict, NoticeCatalogGroup, NoticeCatalogMember, NoticeCatalogRemoval:
		return "catalog"
	case NoticeUpdatesRefused, NoticeUpdatesWait, NoticeUpdatesLost:
		return "update"
	case NoticeAlarmNotSent:
		return "notices"
	case NoticeProposed, NoticeCertificate:
		return "access"
	default:
		return "operate"
	}
}

// severityRank orders severities: the worse, the higher.
func severityRank(severity string) int {
	return slices.Index([]string{severityInfo, severityWarning, severityAlarm}, severity) + 1
}

// Worse reports whether a severity is worse than another; "" is the least.
func Worse(a, b string) bool { return severityRank(a) > severityRank(b) }

// complete adds to notices what follows from their codes.
func complete(notices []Notice) {
	for i := range notices {
		notices[i].Topic = notices[i].Code.Topic()
	}
}

// sinceOf is the time of a notice.
func sinceOf(t time.Time) *time.Time { return timeOrNil(t.UTC().Truncate(time.Second)) }
