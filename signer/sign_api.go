package signer

import (
	"crypto"

	"sluice/signer/zone"
)

// BatchSigner is a P-256 key that signs many digests for less than each
// alone costs.
type BatchSigner interface {
	crypto.Signer
	// SignBatch signs the 32-byte SHA-256 digests that stand one after the
	// other in digests and appends the 64-byte signatures r|s (RFC 6605, 4)
	// to dst in the same order. The signatures of software keys are those of
	// RFC 6979, tokens take random nonces. It is safe for concurrent use.
	SignBatch(dst, digests []byte) ([]byte, error)
}

// MessageSigner is a key whose place hashes what it signs by itself, or gains
// from many messages at a time: it is given messages, not digests.
type MessageSigner interface {
	crypto.Signer
	// SignMessages signs the messages that stand one after the other in
	// messages; ends says where each ends. hash is the algorithm's, 0 for
	// Ed25519 and Ed448. The signatures are appended to dst in the same order,
	// in the form of RRSIG records, all of the same size. It is safe for
	// concurrent use.
	SignMessages(dst, messages []byte, ends []int, hash crypto.Hash) ([]byte, error)
}

// Input is what one run signs.
type Input struct {
	// Contents walks the KindContents items of the whole zone.
	Contents zone.Iterator
	// ContentState is the state of the content digest of Contents.
	ContentState *zone.SetHash
	// Previous is the signed instance whose signatures are taken over where
	// they still fit; nil signs everything. With it, the run's items are a
	// diff to it.
	Previous *Previous
	// Spill holds what sorting cannot keep in memory.
	Spill zone.Spill
}

// Previous is a signed instance.
type Previous struct {
	// Contents walks the KindContents items that were signed.
	Contents zone.Iterator
	// The items that the signer made, one iterator a kind.
	Made, Sigs, Chain, ChainSigs zone.Iterator
	// SignedState is the state of its signed digest.
	SignedState *zone.SetHash
}

// Sink takes the items that a run makes. Kinds may alternate; within a kind
// keys ascend. An empty value deletes the key (in a diff). Key and value are
// valid during the call only.
type Sink interface {
	Put(key, value []byte) error
}
