package share

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/nats-io/nkeys"

	"sluice/journal/event"
)

// Kind says what a parcel holds, and what is wanted of who gets it.
type Kind string

// The kinds.
const (
	// KindKey holds the private part of a key, as PKCS #8 in DER: it is to be
	// stored and proved.
	KindKey Kind = "key"
	// KindProof holds nothing: a key is to be proved that the recipient has
	// access to.
	KindProof Kind = "proof"
	// KindTSIG holds a TSIG secret, which is to be stored.
	KindTSIG Kind = "tsig"
	// KindWanted holds nothing: the sender lacks a key or a TSIG secret, and asks
	// for it.
	KindWanted Kind = "wanted"
)

// Context is what a parcel is for. It is encrypted with the secret, so that
// neither can be used with another.
type Context struct {
	Stream string       // identity of the EVENTS stream, 32 hex digits
	Zone   event.ZoneID // of the key; event.Instance for a TSIG key
	Name   string       // of the zone or of the TSIG key: absolute, lower case, final dot
	Key    string       // ID of the key; "" for a TSIG key
	From   string       // the process that sends it
	To     string       // the one that may open it
}

// Nonce is random bytes that only sender and recipient know.
type Nonce [32]byte

// Parcel is what one process hands to another.
type Parcel struct {
	Kind Kind
	Context
	Algorithm string // of a TSIG key
	Nonce     Nonce
	// Secret is the private part. Who has sealed or used the parcel wipes it.
	Secret []byte
}

// Wipe clears the secret.
func (p *Parcel) Wipe() { clear(p.Secret) }

// Bounds in bytes. A name has at most 255 octets, each of which may be written
// in four.
const (
	maxText   = 1100
	maxSecret = 16 << 10
	maxPlain  = 32 << 10
	// MaxSealed is the longest sealed parcel.
	MaxSealed = 40 << 10
)

const (
	plainMagic  = "sluice parcel 1\n"
	sealedMagic = "sluice sealed 1\n"
)

// ErrRefused reports a parcel that is not taken: damaged, or not from, to or
// for what it has to be.
var ErrRefused = errors.New("refused")

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// Seal encrypts a parcel to the process to, and signs it. The caller fills in
// the context but for From and To.
func Seal(from *Identity, to Peer, p Parcel) ([]byte, error) {
	p.From, p.To = from.name, to.Name
	recipient, err := age.ParseX25519Recipient(to.Recipient)
	if err != nil {
		return nil, fmt.Errorf("recipient of worker %q: %w", to.Name, err)
	}
	plain, err := p.encode()
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	var box bytes.Buffer
	w, err := age.Encrypt(&box, recipient)
	if err != nil {
		return nil, fmt.Errorf("encrypt for worker %q: %w", to.Name, err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("encrypt for worker %q: %w", to.Name, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypt for worker %q: %w", to.Name, err)
	}
	signature, err := from.signer.Sign(signedText(to.Name, box.Bytes()))
	if err != nil {
		return nil, fmt.Errorf("sign for worker %q: %w", to.Name, err)
	}
	out := []byte(sealedMagic)
	out = appendBytes(out, []byte(from.name))
	out = appendBytes(out, signature)
	return append(out, box.Bytes()...), nil
}

// signedText is what the sender signs: the words in front cannot be mistaken
// for what an nkey signs to log in.
func signedText(to string, box []byte) []byte {
	out := appendBytes([]byte("\xff\xffsluice parcel\n"), []byte(to))
	return append(out, box...)
}

// Sender is the name of the process that a sealed parcel says it comes from.
// Nothing is checked yet.
func Sender(sealed []byte) (string, error) {
	name, _, _, err := split(sealed)
	return name, err
}

func split(sealed []byte) (from string, signature, box []byte, err error) {
	if len(sealed) > MaxSealed {
		return "", nil, nil, refused("%d bytes, at most %d are taken", len(sealed), MaxSealed)
	}
	rest, ok := bytes.CutPrefix(sealed, []byte(sealedMagic))
	if !ok {
		return "", nil, nil, refused("it is no sealed parcel of this format")
	}
	d := decoder{rest: rest}
	name, signature := d.bytes(maxWorkerName), d.bytes(maxText)
	if d.err != nil || !WorkerName(string(name)) || len(signature) != 64 {
		return "", nil, nil, refused("its head is damaged")
	}
	return string(name), signature, d.rest, nil
}

// Open verifies that a sealed parcel was signed by from for own, and decrypts
// it. What it is for must be checked with Parcel.For. Errors wrap ErrRefused
// and show nothing of the secret.
func Open(own *Identity, from Peer, sealed []byte) (Parcel, error) {
	name, signature, box, err := split(sealed)
	if err != nil {
		return Parcel{}, err
	}
	if name != from.Name {
		return Parcel{}, refused("it comes from %q, not from %q", name, from.Name)
	}
	public, err := nkeys.FromPublicKey(from.NKey)
	if err != nil {
		return Parcel{}, refused("the journal names no signing key of worker %q", from.Name)
	}
	if public.Verify(signedText(own.name, box), signature) != nil {
		return Parcel{}, refused("it was not signed by worker %q for worker %q", from.Name, own.name)
	}
	r, err := age.Decrypt(bytes.NewReader(box), own.age)
	if err != nil {
		return Parcel{}, refused("it is not encrypted to worker %q", own.name)
	}
	plain := make([]byte, 0, maxPlain+1)
	defer func() { clear(plain[:cap(plain)]) }()
	n, err := io.ReadFull(r, plain[:cap(plain)])
	if err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Parcel{}, refused("it is damaged, or too large")
	}
	p, err := decodeParcel(plain[:n])
	if err != nil {
		return Parcel{}, err
	}
	if p.From != from.Name || p.To != own.name {
		p.Wipe()
		return Parcel{}, refused("inside it is from %q to %q, outside from %q to %q", p.From, p.To, from.Name, own.name)
	}
	return p, nil
}

// For refuses a parcel that is for something else than c says; From and To were
// checked by Open.
func (p *Parcel) For(c Context) error {
	switch {
	case p.Stream != c.Stream:
		return refused("it is for the journal %s, this is %s", p.Stream, c.Stream)
	case p.Zone != c.Zone || p.Name != c.Name:
		return refused("it is for %s (%s), not for %s (%s)", p.Name, p.Zone, c.Name, c.Zone)
	case p.Key != c.Key:
		return refused("it is for key %s, not for key %s", p.Key, c.Key)
	}
	return nil
}

// encode writes magic, then each member with its length.
func (p *Parcel) encode() ([]byte, error) {
	if len(p.Secret) > maxSecret {
		return nil, fmt.Errorf("a secret of %d bytes: at most %d can be shared", len(p.Secret), maxSecret)
	}
	out := make([]byte, 0, maxPlain) // never grown: no copy of the secret is left behind
	out = append(out, plainMagic...)
	for _, text := range p.texts() {
		if len(*text) > maxText {
			return nil, fmt.Errorf("%q is too long to be shared", *text)
		}
		out = appendBytes(out, []byte(*text))
	}
	out = append(out, p.Nonce[:]...)
	return appendBytes(out, p.Secret), nil
}

// texts is the members that are text, in the order of the format.
func (p *Parcel) texts() []*string {
	return []*string{(*string)(&p.Kind), &p.Stream, (*string)(&p.Zone), &p.Name, &p.Key, &p.From, &p.To, &p.Algorithm}
}

func decodeParcel(plain []byte) (Parcel, error) {
	rest, ok := bytes.CutPrefix(plain, []byte(plainMagic))
	if !ok {
		return Parcel{}, refused("it holds no parcel of this format")
	}
	var p Parcel
	d := decoder{rest: rest}
	for _, text := range p.texts() {
		*text = string(d.bytes(maxText))
	}
	d.fixed(p.Nonce[:])
	secret := d.bytes(maxSecret)
	if d.err != nil || len(d.rest) != 0 {
		return Parcel{}, refused("what it holds is damaged")
	}
	switch p.Kind {
	case KindKey, KindTSIG:
		if len(secret) == 0 {
			return Parcel{}, refused("it holds no secret")
		}
	case KindProof, KindWanted:
		if len(secret) != 0 {
			return Parcel{}, refused("it holds a secret that it must not hold")
		}
	default:
		return Parcel{}, refused("its kind is not known")
	}
	p.Secret = bytes.Clone(secret)
	return p, nil
}

// appendBytes writes bytes behind their length.
func appendBytes(out, b []byte) []byte {
	out = binary.BigEndian.AppendUint16(out, uint16(len(b))) //nolint:gosec // bounded by the callers
	return append(out, b...)
}

// decoder reads what appendBytes wrote.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) bytes(most int) []byte {
	if d.err != nil || len(d.rest) < 2 {
		d.err = ErrRefused
		return nil
	}
	n := int(binary.BigEndian.Uint16(d.rest))
	if n > most || len(d.rest) < 2+n {
		d.err = ErrRefused
		return nil
	}
	out := d.rest[2 : 2+n]
	d.rest = d.rest[2+n:]
	return out
}

func (d *decoder) fixed(to []byte) {
	if d.err != nil || len(d.rest) < len(to) {
		d.err = ErrRefused
		return
	}
	copy(to, d.rest)
	d.rest = d.rest[len(to):]
}
