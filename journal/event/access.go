package event

// AccessGranted lets whoever has a secret use the API over the network: a
// token. It stands under Instance and holds the secret's hash alone; secrets
// are 256 random bits, so nobody finds one by trying, and a hash that is made
// in haste is as good as a slow one.
type AccessGranted struct {
	Name    string   `json:"name"`              // who acts with it, as events name the actor
	Roles   []string `json:"api_roles"`         // what it may do, sorted
	SHA256  Hash     `json:"sha256"`            // of the token's text
	Expires int64    `json:"expires,omitempty"` // in seconds since 1970; 0 is never
}

// AccessWithdrawn ends what a token may do. It stands under Instance.
type AccessWithdrawn struct {
	Name string `json:"name"`
}

// Why a request was refused.
const (
	// RefusedUnknown: without a token that is known here.
	RefusedUnknown = "unknown"
	// RefusedExpired: the token's time was over.
	RefusedExpired = "expired"
	// RefusedRole: its role does not allow it.
	RefusedRole = "role"
	// RefusedLimit: there were too many requests.
	RefusedLimit = "limit"
	// RefusedUpdate: a dynamic update that no rule of the zone's policy allows.
	RefusedUpdate = "update"
)

// AccessRefused tells of requests to the API, and of dynamic updates, that were
// not allowed. Of those
// without a known token, and of the same one again, only their number is told,
// less and less often. It stands under Instance; the actor is the token's name,
// "unknown" without one.
type AccessRefused struct {
	Why    string `json:"why"`                // unknown, expired, role, limit, update
	Method string `json:"method,omitempty"`   // of the request, UPDATE of an update; "" of several
	Route  string `json:"route,omitempty"`    // its path as a pattern; the zone of an update
	Role   string `json:"api_role,omitempty"` // the one that is missing
	// Peer is the address that it came from, of several the one with the most.
	Peer  string `json:"peer,omitempty"`
	Peers uint64 `json:"peers,omitempty"` // addresses, where there were several
	Count uint64 `json:"count"`           // requests that the event stands for
	Since int64  `json:"since,omitempty"` // when the first of them came, in seconds since 1970
}

// AccessUsed tells that somebody asked for something that leaves no other
// event: a load, a signing, an export. It stands under the zone that it is
// about, else under Instance, before it is done.
type AccessUsed struct {
	Request string `json:"request"` // method, path and query below the API's prefix
	// Reason is why, as who asked said.
	Reason string `json:"reason,omitempty"`
}

// EventType implements Facts.
func (*AccessGranted) EventType() string { return "access.granted" }

// EventType implements Facts.
func (*AccessWithdrawn) EventType() string { return "access.withdrawn" }

// EventType implements Facts.
func (*AccessRefused) EventType() string { return "access.refused" }

// EventType implements Facts.
func (*AccessUsed) EventType() string { return "access.used" }
