package keymgr

import (
	"context"
	"errors"
	"time"
)

// ErrTokens reports that this program or machine cannot reach tokens at all.
var ErrTokens = errors.New("keystores on tokens are not possible here")

// Hinter is an error that says what to do about it.
type Hinter interface {
	error
	Hint() string
}

// HintOf is what an error, or one that it wraps, says to do; "" where none
// does.
func HintOf(err error) string {
	if h, ok := errors.AsType[Hinter](err); ok {
		return h.Hint()
	}
	return ""
}

// Token is what is public of a keystore on a PKCS#11 token or a KMIP server.
type Token struct {
	Name   string // the keystore's
	Server Server // the KMIP server; the zero value for a token
	Module string // absolute path of the vendor's library
	Label  string // of the token
	Serial string // of the token; "" only while it is being looked for
	// Sessions is how many calls may be with the token at a time; 0 is 8.
	Sessions int
	// Timeout is how long one call may take; 0 is 10 seconds.
	Timeout time.Duration
}

// TokenState is how a keystore on a token was found when it was last used.
type TokenState struct {
	Connected bool
	// Problem is why it cannot be used; "" where it can, or was not used yet.
	Problem string
	// Hint says what to do about that.
	Hint string
	// Stopped: it is not tried again before a person acts, since the token
	// refused the PIN and would lock itself.
	Stopped bool
	Since   time.Time // since when it is so
}

// TokenTest is what came of a test of a token or a KMIP server.
type TokenTest struct {
	Algorithm    uint8
	Manufacturer string
	Model        string
	Sessions     int           // used at a time
	Generate     time.Duration // to make a key pair
	Sign         time.Duration // median time of one signature
	Slowest      time.Duration // longest time of one
	Signatures   int           // made and verified
	PerSecond    float64       // with all sessions at once

	Protocol         string  // "KMIP 2.0"; "" of a token
	Batch            int     // signatures that one request asked for at most; 0 where a request is for one
	BatchedPerSecond float64 // with all sessions at once, in batches
}

// TokenKeystore is a keystore on a token.
type TokenKeystore interface {
	Keystore
	// Token says which.
	Token() Token
	// State is how it was found when it was last used; nothing is asked.
	State() TokenState
	// Check asks the token whether it is there, and connects where it was not.
	// A PIN that was refused is not tried again.
	Check(ctx context.Context) error
	// Test makes a key that the token forgets again, signs with it, and
	// verifies. Algorithm 0 is P-256 where the token has it, else RSA. A person
	// asks for it: a PIN that was refused is tried once more; pin, where it is
	// not "", is tried in place of the one that is kept, and then kept.
	Test(ctx context.Context, algorithm uint8, pin string) (TokenTest, error)
	// Close ends all use of the token.
	Close() error
}

// Tokens keeps what a process needs to use tokens: modules and PINs.
type Tokens interface {
	// Find looks for the one token with the label, and the serial number where
	// that is given, and logs in with the PIN. It returns t with the serial
	// number filled in. Several tokens that fit are an error that names them.
	Find(ctx context.Context, t Token, pin string) (Token, error)
	// KeepPIN stores a token's PIN, durably, for the keystore of that name.
	KeepPIN(name, pin string) error
	// ForgetPIN deletes it; one that is not there is no error.
	ForgetPIN(name string) error
	// Open makes a keystore of a token. Nothing is asked yet: what is wrong
	// shows in use.
	Open(t Token) TokenKeystore
}
