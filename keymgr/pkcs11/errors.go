//go:build cgo

package pkcs11

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	p11 "github.com/miekg/pkcs11"
)

// is reports whether a call's error is one of the codes.
func is(err error, codes ...uint) bool {
	code, ok := errors.AsType[p11.Error](err)
	return ok && slices.Contains(codes, uint(code))
}

// named gives an error of a module the name of its code; codes that vendors
// made up have none.
func named(err error) error {
	if code, ok := errors.AsType[p11.Error](err); ok && uint(code) >= p11.CKR_VENDOR_DEFINED {
		return fmt.Errorf("vendor's error 0x%08X: %w", uint(code), err)
	}
	return err
}

// lost reports whether an error says that session, login or token are gone, or
// may be: a new connection shows which.
func lost(err error) bool {
	return is(err, p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED, p11.CKR_USER_NOT_LOGGED_IN,
		p11.CKR_DEVICE_REMOVED, p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_MEMORY, p11.CKR_TOKEN_NOT_PRESENT,
		p11.CKR_TOKEN_NOT_RECOGNIZED, p11.CKR_SLOT_ID_INVALID, p11.CKR_CRYPTOKI_NOT_INITIALIZED,
		p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_OPERATION_ACTIVE, p11.CKR_OPERATION_NOT_INITIALIZED,
		p11.CKR_HOST_MEMORY)
}

// stale reports whether an error says that the handle of a key is none any
// more.
func stale(err error) bool {
	return is(err, p11.CKR_KEY_HANDLE_INVALID, p11.CKR_OBJECT_HANDLE_INVALID)
}

// refusal reports whether an error is the token's answer to a PIN.
func refusal(err error) bool {
	return is(err, p11.CKR_PIN_INCORRECT, p11.CKR_PIN_LOCKED, p11.CKR_PIN_EXPIRED, p11.CKR_PIN_LEN_RANGE,
		p11.CKR_PIN_INVALID, p11.CKR_USER_PIN_NOT_INITIALIZED)
}

// BadSignatureError reports that a token made a signature that its own public
// key does not verify. It was not used.
type BadSignatureError struct {
	Keystore  string
	Token     string // label and serial number
	Reference string // the key
	Digest    []byte // what was signed; the message itself for Ed25519 and Ed448
	Signature []byte
}

// maxEvidence bounds what of a message stands in an error, in bytes.
const maxEvidence = 64

// Error implements error; it has the evidence in it.
func (e *BadSignatureError) Error() string {
	digest := hex.EncodeToString(e.Digest[:min(len(e.Digest), maxEvidence)])
	if len(e.Digest) > maxEvidence {
		digest += fmt.Sprintf("... (%d bytes)", len(e.Digest))
	}
	return fmt.Sprintf("keystore %q, %s: a signature by key %s does not verify with its public key, and is not used; signed %s, signature %x",
		e.Keystore, e.Token, e.Reference, digest, e.Signature)
}
