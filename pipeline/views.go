package pipeline

import (
	"errors"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
)

// Errors that doors turn into exit codes and HTTP statuses.
var (
	// ErrNotFound: no such zone, policy, key or instance.
	ErrNotFound = errors.New("not found")
	// ErrState: not possible in the present state.
	ErrState = errors.New("not possible now")
	// ErrInvalid: the request itself is wrong.
	ErrInvalid = errors.New("invalid request")
)

// ZoneSummary is one line of zone list.
type ZoneSummary struct {
	Name            string     `json:"name"`
	ID              string     `json:"id"`
	State           string     `json:"state"` // one or two words: new, loading, signing, published, failed ...
	Policy          string     `json:"policy"`
	Mode            Mode       `json:"mode"` // sign, pass-through, unsigned: what the policy says
	Source          string     `json:"source"`
	LoadedSerial    *uint32    `json:"loaded_serial,omitempty"`
	PublishedSerial *uint32    `json:"published_serial,omitempty"`
	NextExpiry      *time.Time `json:"next_expiry,omitempty"` // earliest RRSIG expiration of what is published
	Notices         []Notice   `json:"notices,omitempty"`
}

// Notice is something an operator should know.
type Notice struct {
	Severity string     `json:"severity"` // info, warning, alarm
	Code     NoticeCode `json:"code"`     // of a closed list, for programs
	Text     string     `json:"text"`
	Hint     string     `json:"hint,omitempty"`  // what to do next
	Since    *time.Time `json:"since,omitempty"` // from when on it is so, where that is known
	// Topic is the page of the manual that says more of it.
	Topic string `json:"topic,omitempty"`
}

// ZoneStatus is what zone status shows.
type ZoneStatus struct {
	ZoneSummary
	WaitsFor string     `json:"waits_for,omitempty"` // a sentence
	Since    *time.Time `json:"since,omitempty"`
	Next     string     `json:"next,omitempty"` // a sentence
	NextAt   *time.Time `json:"next_at,omitempty"`
	// Coming is all that will happen by itself, soonest first, each at the
	// earliest.
	Coming    []Coming `json:"coming,omitempty"`
	LastError string   `json:"last_error,omitempty"`
	// Stages is where the zone stands on its way from the source to the
	// secondaries, in that order.
	Stages    []StageStatus    `json:"stages,omitempty"`
	Progress  *Progress        `json:"progress,omitempty"` // of what this process does for it
	Loaded    *InstanceSummary `json:"loaded,omitempty"`
	Signed    *InstanceSummary `json:"signed,omitempty"`
	Published *InstanceSummary `json:"published,omitempty"`
	Keys      []keymgr.Key     `json:"keys,omitempty"`
	// Rollovers is those that run.
	Rollovers []RolloverStatus `json:"rollovers,omitempty"`
	// Exchange is signatures that wait to be replaced by those of the keys that
	// sign; nil where there are none.
	Exchange *ExchangeStatus `json:"exchange,omitempty"`
	// Upstream is the source's servers, nil for a file; Secondaries those that
	// are told of new versions.
	Upstream    *UpstreamStatus   `json:"upstream,omitempty"`
	Secondaries []SecondaryStatus `json:"secondaries,omitempty"`
	// Updates is what dynamic updates did to it; nil where it takes none.
	Updates *UpdatesStatus `json:"updates,omitempty"`
	// Fetched is what each peer took last.
	Fetched []FetchStatus `json:"fetched,omitempty"`
	// Reviews is what is under review, and what halted the zone there.
	Reviews     []ReviewStatus     `json:"reviews,omitempty"`
	Maintenance *MaintenanceStatus `json:"maintenance,omitempty"`
	// Proposals is what waits for a second person.
	Proposals []ProposalStatus `json:"proposals,omitempty"`
	// Held says by which rollback the zone is held; nil where it is not.
	Held *HoldStatus `json:"held,omitempty"`
	// ParentTold is what became of telling the parent what DS it is to have; nil
	// where there is nothing to tell.
	ParentTold *ToldStatus `json:"parent_told,omitempty"`
	// Observation is what the world sees; nil where nobody asks.
	Observation *ObservationStatus `json:"observation,omitempty"`
	// Probe is what validating resolvers say; nil where nobody asks them.
	Probe *ProbeStatus `json:"probe,omitempty"`
	// Catalog is "consumed" or "produced" of a catalog zone, Member the zone's
	// place in the catalog that it comes from; nil where it was added by hand.
	Catalog string            `json:"catalog,omitempty"`
	Member  *MembershipStatus `json:"member,omitempty"`
}

// ExchangeStatus tells how far signatures are replaced that are published and
// by other keys than those that sign.
type ExchangeStatus struct {
	Keys   []string   `json:"keys"`   // IDs of the keys that such signatures are by
	RRsets uint64     `json:"rrsets"` // all that the keys which sign have to sign
	Left   uint64     `json:"left"`   // of these, not signed by them alone yet
	Since  time.Time  `json:"since"`
	Until  time.Time  `json:"until"`
	NextAt *time.Time `json:"next_at,omitempty"` // of the next slice by itself
}

// InstanceSummary describes one instance.
type InstanceSummary struct {
	Instance      string            `json:"instance"` // l<sequence> or s<sequence>
	Serial        uint32            `json:"serial"`
	Time          time.Time         `json:"time"`
	Records       uint64            `json:"records"`
	ContentDigest string            `json:"content_digest"`
	SignedDigest  string            `json:"signed_digest,omitempty"`
	Signatures    uint64            `json:"signatures,omitempty"`
	Made          uint64            `json:"made,omitempty"`
	Reused        uint64            `json:"reused,omitempty"`
	DurationMS    uint64            `json:"duration_ms,omitempty"`
	Stripped      map[string]uint64 `json:"stripped,omitempty"`
	Added         uint64            `json:"added,omitempty"`
	Removed       uint64            `json:"removed,omitempty"`
	Notices       []string          `json:"notices,omitempty"`
	// SignedBy counts RRsets by the keys whose signatures they have; DNSKEY,
	// CDS and CDNSKEY at the apex aside.
	SignedBy []event.SignedBy `json:"signed_by,omitempty"`
	// Parts is which workers signed it, where several did.
	Parts []event.SignedParts `json:"parts,omitempty"`
	// Mode is how a signed instance was made: sign, pass-through, unsigned.
	Mode Mode `json:"mode,omitempty"`
	// ZONEMD says what became of the ZONEMD records that a loaded one came
	// with: verified, unsupported, unchecked; empty where there was none.
	ZONEMD string `json:"zonemd,omitempty"`
}

// NewZone is what AddZone needs.
type NewZone struct {
	Name        string    `json:"name"`
	Source      string    `json:"source"`
	Policy      string    `json:"policy,omitempty"` // "" is "default"
	SerialFloor *uint32   `json:"serial_floor,omitempty"`
	Import      []KeyFile `json:"import,omitempty"`
	// Force takes imported keys over though the world may not trust them.
	Force bool `json:"force,omitempty"`
	// NewKeys leaves out the keys of an earlier zone of that name.
	NewKeys bool `json:"new_keys,omitempty"`
	// Reason is why, for the history.
	Reason string `json:"reason,omitempty"`
}

// KeyFile names a BIND private key file to import, on the daemon's machine; with
// Public, a file with DNSKEY records of another signer of the zone; with Keystore
// and ID, the .key file of a key whose private part is in that keystore already.
type KeyFile struct {
	Path   string      `json:"path"`
	Role   keymgr.Role `json:"key_role"`
	Public bool        `json:"public,omitempty"`
	// Keystore is the name of the keystore, and ID what the key pair has there:
	// CKA_ID in hex.
	Keystore string `json:"keystore,omitempty"`
	ID       string `json:"id,omitempty"`
}

// HistoryLine is one event as history and tail show it.
type HistoryLine struct {
	Seq   uint64    `json:"seq"`
	Time  time.Time `json:"time"`
	Zone  string    `json:"zone"` // the zone's name, or "_"
	Type  string    `json:"type"`
	Actor string    `json:"actor"`
	Door  string    `json:"door"`
	// Role is the role by which who came through a door was allowed to.
	Role string `json:"api_role,omitempty"`
	Text string `json:"text"` // a readable sentence: what, and why
	// Evidence is what it can be checked by.
	Evidence []Proof `json:"evidence,omitempty"`
	// Next is what comes after it, of events about keys; "" where nothing does.
	Next string `json:"next,omitempty"`
	// Sealed are the fields of it that are sealed; the text has their values.
	Sealed []SealedField `json:"sealed,omitempty"`
	Event  []byte        `json:"-"` // the public line as stored
}

// HistoryQuery selects events of one zone.
type HistoryQuery struct {
	Since, Until time.Time // zero: no bound
	Types        []string  // empty: all
	Before       uint64    // only events before this sequence; 0: no bound
	Limit        int       // the newest so many; 0: all
	Evidence     bool      // lines have what events can be checked by
	Closed       bool      // what is sealed is left out
}

// ReplayStep is one instance met during a replay.
type ReplayStep struct {
	Instance string `json:"instance"`
	Seq      uint64 `json:"seq"`
	Serial   uint32 `json:"serial"`
	Records  uint64 `json:"records"`
	// Recorded and Rebuilt are the content digest (loaded instances) or the
	// signed digest (signed ones) as the event says and as computed anew.
	Recorded string `json:"recorded"`
	Rebuilt  string `json:"rebuilt"`
	Equal    bool   `json:"equal"`
}

// DumpQuery selects an instance: the zero value is what is published.
type DumpQuery struct {
	Loaded bool      // the loaded instance behind it, unsigned
	Serial *uint32   // of the published (or loaded) instance
	At     time.Time // what was published (or loaded) then
	Seq    uint64    // what was published (or loaded) as of this event; 0 for no bound
}

// DiffLine is one record that went or came.
type DiffLine struct {
	Removed bool   `json:"removed"`
	Record  string `json:"record"` // presentation form
}

// DSRecord is a key's record for the parent.
type DSRecord struct {
	KeyID  string `json:"key_id"`
	Tag    uint16 `json:"key_tag"`
	State  string `json:"state"`
	Record string `json:"record"`
	// Submit says whether the parent may be given it: signatures are visible
	// and the DNSKEY wait is over.
	Submit bool   `json:"submit"`
	Note   string `json:"note,omitempty"`
}

// PolicyInfo is a policy as loaded and its use.
type PolicyInfo struct {
	Name   string   `json:"name"`
	SHA256 string   `json:"sha256"`
	Zones  []string `json:"zones"`
	Text   string   `json:"text,omitempty"`
	File   string   `json:"file,omitempty"`
	Stale  []string `json:"stale,omitempty"` // zones still bound to an older text
}

// PolicyChange is what a reload of the policies did.
type PolicyChange struct {
	Added     []string `json:"added,omitempty"`
	Updated   []string `json:"updated,omitempty"`
	Removed   []string `json:"removed,omitempty"`
	Unchanged []string `json:"unchanged,omitempty"`
	Rebound   []string `json:"rebound,omitempty"` // zones
	Errors    []string `json:"errors,omitempty"`
	Diffs     []string `json:"diffs,omitempty"` // one text a changed policy
}

// Progress is where long work stands.
type Progress struct {
	Zone  string `json:"zone"`
	Stage string `json:"stage"` // load, sign, verify, publish, replay
	Done  int64  `json:"done"`
	Total int64  `json:"total"` // 0: not known
	// Parts is who has signed how many parts of the zone, where several
	// processes sign it.
	Parts []event.SignedParts `json:"parts,omitempty"`
}
