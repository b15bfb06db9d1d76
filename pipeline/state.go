package pipeline

import (
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
)

// State is what a zone's events add up to. It follows from them alone.
type State struct {
	Zone        event.ZoneID  `json:"zone"`
	Added       Registered    `json:"added"`
	Name        string        `json:"name"` // absolute, lower case, final dot
	Head        journal.Head  `json:"head"`
	Source      string        `json:"source"`
	Sourced     uint64        `json:"sourced,omitempty"` // sequence of the last zone.changed
	Policy      BoundPolicy   `json:"policy"`
	SerialFloor *uint32       `json:"serial_floor,omitempty"`
	Keys        keymgr.KeySet `json:"keys"`

	// Served is the keys that are published, and since when.
	Served keymgr.Served `json:"served,omitzero"`
	// KeyTTLs and ZoneTTLs are the TTLs of the DNSKEY RRset, and the largest of
	// the zone, that were published.
	KeyTTLs  keymgr.TTLs `json:"key_ttls,omitempty"`
	ZoneTTLs keymgr.TTLs `json:"zone_ttls,omitempty"`

	// ParentDS is what the parent's servers had when that last changed.
	ParentDS *event.DSObserved `json:"parent_ds,omitempty"`
	// Told is what became of telling the parent; nil where there was nothing to
	// tell.
	Told *Told `json:"told,omitempty"`
	// Signal is what the operator of the name servers says for the zone; nil
	// where he never was asked to.
	Signal *Signal `json:"signal,omitempty"`

	Loaded    *Loaded    `json:"loaded,omitempty"`    // newest loaded instance
	Approved  *Loaded    `json:"approved,omitempty"`  // newest loaded instance that may be signed
	Signed    *Signed    `json:"signed,omitempty"`    // newest signed instance
	Published *Published `json:"published,omitempty"` // what is served

	LoadFailure *Failure `json:"load_failure,omitempty"` // since the newest loaded instance
	SignFailure *Failure `json:"sign_failure,omitempty"` // since the newest signed instance

	// Fetched is what each peer took last by transfer, by peer; of very many
	// peers those that took the newest instances.
	Fetched []event.Fetch `json:"fetched,omitempty"`

	LoadedReview *Review `json:"loaded_review,omitempty"` // of the newest loaded instance
	SignedReview *Review `json:"signed_review,omitempty"` // of a signed instance
	// Rejected is the signed instance with new content that a review refused
	// last, RefreshRejected the one with the published content.
	Rejected        *Rejection `json:"rejected,omitempty"`
	RefreshRejected *Rejection `json:"refresh_rejected,omitempty"`
	// SignedApproval is the last approval of a signed instance by a person.
	SignedApproval *Approval `json:"signed_approval,omitempty"`
	// Proposals is what waits for a second person. It is replaced, never changed.
	Proposals []Proposal `json:"proposals,omitempty"`
	// Stopped is set where a review halted the zone.
	Stopped *Stop `json:"stopped,omitempty"`
	// Maintenance is set while new work is blocked.
	Maintenance *Maintenance `json:"maintenance,omitempty"`
	// Held is set while a rollback holds the zone; Released from then on until
	// the source was read in full.
	Held     *Hold    `json:"held,omitempty"`
	Released *Release `json:"released,omitempty"`
	// Updates is what dynamic updates made of it.
	Updates Updates `json:"updates,omitzero"`

	// Member is the zone's place in the catalog that it comes from; nil where it
	// was added by hand. It is replaced, never changed.
	Member *Member `json:"member,omitempty"`
	// Brake is what holds the changes of a consumed catalog; nil where nothing
	// ever did. It is replaced, never changed.
	Brake *Brake `json:"brake,omitempty"`

	// Grants is who does the zone's work, by role; a role that was never granted
	// to anybody is missing. It is replaced, never changed.
	Grants map[Role]Grant `json:"grants,omitempty"`
	// Quarantines is the roles whose work rests. It is replaced, never changed.
	Quarantines map[Role]Quarantine `json:"quarantines,omitempty"`
	// Stale counts the events that did not count: their writers' work had been
	// granted to others.
	Stale uint64 `json:"stale,omitempty"`

	// Swept is the sequence of the newest bulk.swept.
	Swept uint64 `json:"swept,omitempty"`
	// Retained is what retention has left; nil where it has purged nothing.
	Retained *Retained `json:"retained,omitempty"`
	// Halted is set where this program met an event that it must understand
	// and does not: the zone is served as it stands, and nothing else.
	Halted *Halt `json:"halted,omitempty"`
	// Removed is the sequence of zone.removed; 0 while the zone lives. It is
	// not kept: the projection forgets a removed zone.
	Removed uint64 `json:"-"`
}

// BoundPolicy is the policy that rules a zone, word for word.
type BoundPolicy struct {
	Name   string     `json:"name"`
	SHA256 event.Hash `json:"sha256"`
	Text   string     `json:"text,omitempty"` // the projection keeps it apart
	Seq    uint64     `json:"seq,omitempty"`  // of its policy.bound
}

// Loaded is a loaded instance.
type Loaded struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	// Facts are those of its event, without the manifest's chunks.
	Facts event.InstanceLoaded `json:"facts"`
	// Broken says why its contents cannot be had from the journal.
	Broken string `json:"broken,omitempty"`
	// Abandoned says why it will never be used.
	Abandoned string `json:"abandoned,omitempty"`
}

// Signed is a signed instance.
type Signed struct {
	Seq    uint64               `json:"seq"`
	Time   time.Time            `json:"time"`
	Policy event.Hash           `json:"policy"` // in force when it was signed
	Facts  event.InstanceSigned `json:"facts"`  // without the manifest's chunks
	// Broken says why what the signer made cannot be had from the journal.
	Broken string `json:"broken,omitempty"`
	// Abandoned says why it will never be published.
	Abandoned string `json:"abandoned,omitempty"`
}

// Published is the instance that is served.
type Published struct {
	Seq    uint64    `json:"seq"` // of instance.published
	Time   time.Time `json:"time"`
	Signed Signed    `json:"signed"`
	Loaded Loaded    `json:"loaded"`
}

// Failure is the last failure of a lane.
type Failure struct {
	Seq    uint64    `json:"seq"`
	Time   time.Time `json:"time"`
	Stage  string    `json:"stage"`
	Loaded uint64    `json:"loaded,omitempty"` // what was being signed
	Head   uint64    `json:"head,omitempty"`   // number of the event before it
	Reason string    `json:"reason"`
	Errors []string  `json:"errors,omitempty"`
	Total  uint64    `json:"total,omitempty"`
	Source string    `json:"source,omitempty"`
	Count  int       `json:"count"` // failures in a row
}

// Halt says why a zone's fold stopped.
type Halt struct {
	Seq    uint64 `json:"seq"`
	Reason string `json:"reason"`
}

// Registered is a zone as it was added.
type Registered struct {
	Seq   uint64          `json:"seq"`
	Time  time.Time       `json:"time"`
	Actor event.Actor     `json:"actor"`
	Facts event.ZoneAdded `json:"facts"`
}

// Registry is the state of the whole instance's own events. Zones stand in
// their own states.
type Registry struct {
	Head  journal.Head `json:"head"`
	Zones uint64       `json:"zones"` // added and not removed
	// Broken says where the instance's own events do not follow each other.
	Broken string `json:"broken,omitempty"`
	// TSIG holds the algorithms of the TSIG keys by name. It is replaced, never
	// changed.
	TSIG map[string]string `json:"tsig,omitempty"`
	// TSIGFrom holds where their secrets come from. It is replaced, never changed.
	TSIGFrom map[string]TSIGOrigin `json:"tsig_from,omitempty"`
	// Keystores holds the tokens that keys are kept on, by the name of the
	// keystore. It is replaced, never changed.
	Keystores map[string]event.KeystoreAdded `json:"keystores,omitempty"`
	// Workers holds the processes that may join, by name. It is replaced, never
	// changed.
	Workers map[string]Enrolled `json:"workers,omitempty"`
	// Tokens holds who may use the API over the network, by name. It is replaced,
	// never changed.
	Tokens map[string]Token `json:"tokens,omitempty"`
	// Catalogs holds the catalog zones by name. It is replaced, never changed.
	Catalogs map[string]Catalog `json:"catalogs,omitempty"`
	// Clock is set while the clock is not trusted.
	Clock *ClockDoubt `json:"clock,omitempty"`
	// Accepted is when a clock was last accepted that showed something else than
	// was expected, by that clock.
	Accepted time.Time `json:"accepted,omitzero"`
	// Checkpoint is the newest one.
	Checkpoint *Checkpointed `json:"checkpoint,omitempty"`
	// Backup is the last copy of the journal, Continued where this log goes on
	// from another one.
	Backup    *BackedUp  `json:"backup,omitempty"`
	Continued *Continued `json:"continued,omitempty"`
}

func registered(rec journal.Record, f *event.ZoneAdded) Registered {
	facts := *f
	facts.Reason = "" // it stays in the event alone
	return Registered{Seq: rec.Seq, Time: rec.Event.Time, Actor: rec.Event.Actor, Facts: facts}
}
