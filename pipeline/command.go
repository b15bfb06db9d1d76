package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

// Lane is one of the ways of a zone's work, so that trouble in one never
// starves the other.
type Lane int

// The lanes.
const (
	// ContentLane brings new contents in.
	ContentLane Lane = iota
	// SigningLane keeps keys, signs and publishes.
	SigningLane
	// LoadedReviewLane runs the hooks for what was loaded.
	LoadedReviewLane
	// SignedReviewLane runs the hooks for what was signed.
	SignedReviewLane
	// HookLane runs the hooks that tell the parent.
	HookLane
	// ParentLane updates and notifies the parent.
	ParentLane
	// ShareLane has other workers prove keys.
	ShareLane
	// RollLane has what rollovers ask for fail and be tried again: it runs in
	// SigningLane, since it changes what is signed.
	RollLane
	lanes
)

// failLane is the lane in which it is noted that a command failed. A rollover
// that cannot go on keeps nothing from being signed with the keys that there
// are.
func failLane(c Command) Lane {
	switch c.(type) {
	case BeginRollover, AdvanceRollover, ChangeCDS, DestroyKeys:
		return RollLane
	default:
		return c.Lane()
	}
}

// aside reports whether a lane's work is beside the zone's own: nobody who waits
// for the zone waits for it.
func (l Lane) aside() bool { return l == HookLane || l == ParentLane }

// Command is something to be done: the only place where effects happen is its
// execution. Commands are values; equal inputs make equal commands.
//
//sumtype:decl
type Command interface {
	// Lane is where it runs.
	Lane() Lane
	// Identity names the command by what goes into it.
	Identity() string
	command()
}

// BindPolicy binds a new zone to its policy, and notes the keys it brought.
type BindPolicy struct {
	Policy string
}

// GenerateKeys makes the keys that a zone lacks.
type GenerateKeys struct {
	Roles     []keymgr.Role
	Algorithm uint8
	Bits      int
	Keystores []string // one a role; "" is that of files
	Ahead     bool     // for the pool
}

// ActivateKeys lets keys prove themselves and sign from now on.
type ActivateKeys struct {
	IDs []string
}

// Load reads the source.
type Load struct {
	Source string
	// Base is the loaded instance that the new one is a diff to; 0 for a
	// new generation.
	Base uint64
	// Full takes the whole zone from its servers, whatever its serial.
	Full bool
	// PassThrough keeps the DNSSEC records of the input.
	PassThrough bool
	// Released is the sequence of the zone.released after which the source is
	// compared in full; 0 for none.
	Released uint64

	// What follows is no part of the identity: a request that comes while the
	// command runs does not undo it.

	// Asked is the number of the newest request that it serves; 0 for none.
	Asked uint64
	// Hint is the serial that a NOTIFY told; 0 for none.
	Hint zone.Serial
	// UpdatesTo is the newest update that it takes the place of; 0 for none.
	UpdatesTo uint64
}

// Sign signs a loaded instance, or makes it ready to be published as its mode
// says.
type Sign struct {
	Loaded uint64
	// AsIs is ModePassThrough or ModeUnsigned; empty where it is signed.
	AsIs Mode
	// Base is the signed instance whose signatures are taken over; 0 signs
	// everything.
	Base    uint64
	Params  string // what Parameters says of the policy
	Keys    []string
	Signers []string
	CDS     []string // IDs of the keys in CDS and CDNSKEY, or event.CDSDelete
	// Refresh is the sequence of the signed instance whose signatures grow
	// old; 0 where content, keys or parameters changed.
	Refresh uint64
	// AtOnce: no signature by a key that signs no longer stays.
	AtOnce bool
	// Asked is the number of the request that it serves; 0 for none. It is no
	// part of the identity.
	Asked uint64
}

// Publish lets a signed instance out, once the egress gate has passed it.
type Publish struct {
	Signed uint64
}

// OpenReview runs the built-in checks of an instance and asks for verdicts.
type OpenReview struct {
	Stage    string
	Instance uint64
}

// RunHook asks one hook for its verdict.
type RunHook struct {
	Stage    string
	Instance uint64
	Number   int // from 1
	Command  string
	Timeout  time.Duration
}

// CloseReview approves what no further verdict is wanted for.
type CloseReview struct {
	Stage    string
	Instance uint64
}

// Lane implements Command.
func (BindPolicy) Lane() Lane { return SigningLane }

// Lane implements Command.
func (GenerateKeys) Lane() Lane { return SigningLane }

// Lane implements Command.
func (ActivateKeys) Lane() Lane { return SigningLane }

// Lane implements Command.
func (Load) Lane() Lane { return ContentLane }

// Lane implements Command.
func (Sign) Lane() Lane { return SigningLane }

// Lane implements Command.
func (Publish) Lane() Lane { return SigningLane }

// Lane implements Command.
func (c OpenReview) Lane() Lane {
	if c.Stage == event.StageSigned {
		return SigningLane
	}
	return ContentLane
}

// Lane implements Command.
func (c RunHook) Lane() Lane { return reviewLane(c.Stage) }

// Lane implements Command.
func (c CloseReview) Lane() Lane { return reviewLane(c.Stage) }

func reviewLane(stage string) Lane {
	if stage == event.StageSigned {
		return SignedReviewLane
	}
	return LoadedReviewLane
}

// Identity implements Command.
func (c BindPolicy) Identity() string { return identity("bind", c) }

// Identity implements Command.
func (c GenerateKeys) Identity() string { return identity("generate", c) }

// Identity implements Command.
func (c ActivateKeys) Identity() string { return identity("activate", c) }

// Identity implements Command. Who asked for a load makes no difference to
// it: a request that comes meanwhile does not throw the result away.
func (c Load) Identity() string {
	c.Asked, c.Hint, c.UpdatesTo = 0, 0, 0
	return identity("load", c)
}

// Identity implements Command.
func (c Sign) Identity() string {
	c.Asked = 0
	return identity("sign", c)
}

// Identity implements Command.
func (c Publish) Identity() string { return identity("publish", c) }

// Identity implements Command.
func (c OpenReview) Identity() string { return identity("open review", c) }

// Identity implements Command.
func (c RunHook) Identity() string { return identity("hook", c) }

// Identity implements Command.
func (c CloseReview) Identity() string { return identity("close review", c) }

func (BindPolicy) command()   {}
func (OpenReview) command()   {}
func (RunHook) command()      {}
func (CloseReview) command()  {}
func (GenerateKeys) command() {}
func (ActivateKeys) command() {}
func (Load) command()         {}
func (Sign) command()         {}
func (Publish) command()      {}

// identity is a hash of a command's inputs, as 32 hex digits. %#v of these
// flat structs is stable: fields in order of declaration, no maps or
// pointers.
func identity(name string, c Command) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %#v", name, c))
	return hex.EncodeToString(sum[:16])
}
