package event

// Kinds of catalog zones (RFC 9432).
const (
	// CatalogConsumed is a catalog whose members are zones here.
	CatalogConsumed = "consumed"
	// CatalogProduced is a catalog that lists zones which are published here.
	CatalogProduced = "produced"
)

// CatalogGroup maps a group of members to the policy of their zones.
type CatalogGroup struct {
	Group  string `json:"group"`
	Policy string `json:"policy"`
}

// CatalogSettings is how a catalog is followed, or what it lists.
type CatalogSettings struct {
	// Groups maps groups to policies; of a consumed catalog the first that a
	// member has counts.
	Groups []CatalogGroup `json:"groups,omitempty"`

	// Of a consumed catalog:

	Policy       string `json:"policy,omitempty"`        // of members of no group that is mapped
	MemberSource string `json:"member_source,omitempty"` // of members; "" is the catalog's own
	MaxMembers   uint64 `json:"max_members,omitempty"`
	// More members gone at once than the larger of these, or all of them, wait
	// for a person.
	MaxRemovals        uint64 `json:"max_removals,omitempty"`
	MaxRemovalsPercent uint64 `json:"max_removals_percent,omitempty"`
	RemovalDelay       uint64 `json:"removal_delay,omitempty"` // in seconds

	// Of a produced catalog:

	Policies []string `json:"policies,omitempty"` // whose zones it lists; none: all zones
}

// CatalogAdded makes a zone a catalog zone. It stands under Instance, before
// the zone.added of that zone.
type CatalogAdded struct {
	Name     string          `json:"name"`
	ID       ZoneID          `json:"id"`           // of the catalog's own zone
	Kind     string          `json:"catalog_kind"` // CatalogConsumed or CatalogProduced
	Settings CatalogSettings `json:"settings"`
}

// CatalogChanged gives a catalog other settings. It stands under Instance.
type CatalogChanged struct {
	Name     string          `json:"name"`
	ID       ZoneID          `json:"id"`
	Settings CatalogSettings `json:"settings"`
}

// CatalogRemoved ends a catalog. With Keep its members are zones on their own
// from then on; else they are removed as if it listed none, and its zone after
// the last of them. It stands under Instance.
type CatalogRemoved struct {
	Name string `json:"name"`
	ID   ZoneID `json:"id"`
	Keep bool   `json:"keep_members,omitempty"`
}

// CatalogHeld holds what a version of a catalog would remove: too many members
// are gone at once. It stands in the catalog's own events.
type CatalogHeld struct {
	Loaded  uint64 `json:"loaded"` // sequence of the version's instance.loaded
	Serial  uint32 `json:"serial"`
	Members uint64 `json:"members"` // zones here that came from the catalog
	Gone    uint64 `json:"gone"`    // of these, that it lists no more
	Limit   uint64 `json:"limit"`
}

// CatalogApproved lets through what a version of a catalog removes.
type CatalogApproved struct {
	Loaded uint64 `json:"loaded"` // sequence of the version's instance.loaded
	Serial uint32 `json:"serial"`
	Gone   uint64 `json:"gone"`
	Reason string `json:"reason"`
}

// Membership is a zone's place in a catalog, and what follows from that.
type Membership struct {
	Catalog   string `json:"catalog"`         // name of the catalog
	CatalogID ZoneID `json:"catalog_id"`      // of its zone
	Label     string `json:"label"`           // the unique label of the member node
	Group     string `json:"group,omitempty"` // the one that decided the policy
	Serial    uint32 `json:"serial"`          // of the version that said so
	Source    string `json:"source"`          // what the zone is given by the catalog
	Policy    string `json:"policy"`
}

// MemberListed says as what a catalog lists the zone from here on. It ends a
// removal that was announced.
type MemberListed struct {
	Membership Membership `json:"membership"`
	// Reset: its unique label is another one, so the zone is loaded anew in full.
	Reset bool `json:"reset,omitempty"`
	// Former is the name of the catalog that it came from before.
	Former string `json:"former,omitempty"`
}

// MemberUnlisted announces that the zone is removed, as its catalog lists it no
// more.
type MemberUnlisted struct {
	Catalog string `json:"catalog"`
	Serial  uint32 `json:"serial"` // of the version without it
	Due     int64  `json:"due"`    // when, in seconds since 1970
	// Approved: a person let it through.
	Approved bool `json:"approved,omitempty"`
}

// EventType implements Facts.
func (*CatalogAdded) EventType() string { return "catalog.added" }

// EventType implements Facts.
func (*CatalogChanged) EventType() string { return "catalog.changed" }

// EventType implements Facts.
func (*CatalogRemoved) EventType() string { return "catalog.removed" }

// EventType implements Facts.
func (*CatalogHeld) EventType() string { return "catalog.held" }

// EventType implements Facts.
func (*CatalogApproved) EventType() string { return "catalog.approved" }

// EventType implements Facts.
func (*MemberListed) EventType() string { return "member.listed" }

// EventType implements Facts.
func (*MemberUnlisted) EventType() string { return "member.unlisted" }

// catalogTypes are the types of facts about catalogs.
func catalogTypes() []func() Facts {
	return []func() Facts{
		func() Facts { return new(CatalogAdded) },
		func() Facts { return new(CatalogApproved) },
		func() Facts { return new(CatalogChanged) },
		func() Facts { return new(CatalogHeld) },
		func() Facts { return new(CatalogRemoved) },
		func() Facts { return new(MemberListed) },
		func() Facts { return new(MemberUnlisted) },
	}
}
