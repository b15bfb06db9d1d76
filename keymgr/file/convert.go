package file

import (
	"crypto"
	"errors"
	"fmt"

	"sluice/journal/event"
	"sluice/keymgr"
)

// FromPEM turns an unencrypted PKCS#8 private key in PEM form into the text of a
// private key file in BIND's format (v1.3) without times. rdata is the DNSKEY
// RDATA of its public part with those flags. It fails where key and algorithm do
// not fit together.
func FromPEM(text []byte, algorithm uint8, flags uint16) (private, rdata []byte, err error) {
	key, err := decodePEM(text)
	if err != nil {
		return nil, nil, err
	}
	if rdata, err = publicData(algorithm, flags, key.Public()); err != nil {
		return nil, nil, err
	}
	private, err = privateText(algorithm, key, &event.KeyLife{})
	return private, rdata, err
}

// PublicOf reads a private key file in BIND's format (v1.2 and v1.3): its
// algorithm, and the DNSKEY RDATA of its public part with those flags. Errors:
// ErrElsewhere where the private part is in an HSM.
func PublicOf(private []byte, flags uint16) (algorithm uint8, rdata []byte, err error) {
	fields, err := parseFields(private)
	if err != nil {
		return 0, nil, err
	}
	if fields["engine"] != "" || fields["label"] != "" {
		return 0, nil, ErrElsewhere
	}
	algorithm, key, err := fields.private()
	if err != nil {
		return 0, nil, err
	}
	rdata, err = publicData(algorithm, flags, key.Public())
	return algorithm, rdata, err
}

// ErrElsewhere is returned for a key file that only names a key of an HSM.
var ErrElsewhere = errors.New("the key is in an HSM, the file only names it")

// publicData is the DNSKEY RDATA of a public key (RFC 4034, 2.1).
func publicData(algorithm uint8, flags uint16, public crypto.PublicKey) ([]byte, error) {
	field, err := keymgr.PublicField(algorithm, public)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return append([]byte{byte(flags >> 8), byte(flags), 3, algorithm}, field...), nil
}
