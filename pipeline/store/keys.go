package store

import (
	"encoding/binary"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// The keyspaces, by first byte. Numbers in keys are big-endian.
const (
	spacePosition = 0x00 // alone: how far the store has read; sequence (8): a mark
	spaceZones    = 0x01 // zone id: number and whether it was removed
	spaceNext     = 0x02 // alone: the next zone number
	spaceMeta     = 0x03 // zone number (4), tag (1), and what the tag says
	spaceTree     = 0x04 // index (8): a hash of the Merkle tree over all events
	spaceHeads    = 0x05 // zone id: number and hash of its last event
	spaceRefs     = 0x06 // zone id, 0 (1), lane (1), sequence (8): an event of the zone's history
	spaceNames    = 0x07 // name of a zone, 0 (1), sequence of zone.added (8): zone id
	spaceCommon   = 0x08 // hash (32): what states of several zones have in common
	spaceData     = 0x10 // zone number (4), generation (8), item key, inverted version (8)
	spaceLists    = 0x20 // zone number (4), instance (8), kind (1), block (4)
	spaceDiffs    = 0x30 // zone number (4), signed instance led to (8), part (1), item key
	spaceDue      = 0x40 // zone number (4), generation (8), time (8), form (1) and what it says
)

// The tags of spaceMeta.
const (
	tagHead     = 0 // nothing more: what is published
	tagState    = 1 // nothing more: the pipeline's bytes
	tagInstance = 2 // sequence (8): InstanceMeta
	tagDigest   = 3 // sequence (8): state of the instance's set hash
	tagDiff     = 4 // sequence of the signed instance led to (8): diffMeta
)

// The parts of a diff.
const (
	partRemoved = 0
	partAdded   = 1
)

// schema is the number of this layout. A store with another one is rebuilt.
const schema = 6

// dataPrefix is the length of what stands before the item key in spaceData.
const dataPrefix = 1 + 4 + 8

// versionLen is the length of the version behind the item key.
const versionLen = 8

// maxDataKey bounds a key of spaceData.
const maxDataKey = dataPrefix + zone.MaxKey + versionLen

// kinds are the kinds of items that the store keeps, in key order.
var kinds = [...]zone.Kind{ //nolint:gochecknoglobals // a constant in all but name
	zone.KindContents, zone.KindMade, zone.KindSigs, zone.KindChain, zone.KindChainSigs,
}

// kindIndex is k's place in kinds, or -1.
func kindIndex(k zone.Kind) int {
	if k < zone.KindContents || k > zone.KindChainSigs {
		return -1
	}
	return int(k - zone.KindContents)
}

// markKey is the mark of a position; that of 0 is the store's beginning.
func markKey(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte{spacePosition}, seq) }

func commonKey(h event.Hash) []byte { return append([]byte{spaceCommon}, h[:]...) }

func zoneKey(id event.ZoneID) []byte { return append([]byte{spaceZones}, id...) }

// appendZone appends a keyspace and a zone number.
func appendZone(dst []byte, space byte, z uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, space), z)
}

func metaKey(z uint32, tag byte) []byte { return append(appendZone(nil, spaceMeta, z), tag) }

func metaSeqKey(z uint32, tag byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(metaKey(z, tag), seq)
}

// generationKey is what all entries of a generation begin with.
func generationKey(z uint32, generation uint64) []byte {
	return binary.BigEndian.AppendUint64(appendZone(make([]byte, 0, maxDataKey), spaceData, z), generation)
}

// appendVersion appends the inverted version: newer entries stand first.
func appendVersion(dst []byte, version uint64) []byte {
	return binary.BigEndian.AppendUint64(dst, ^version)
}

// listKey is what the blocks of an instance's changed keys begin with.
func listKey(z uint32, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(appendZone(make([]byte, 0, 18), spaceLists, z), seq)
}

func blockKey(z uint32, seq uint64, kind zone.Kind, block uint32) []byte {
	return binary.BigEndian.AppendUint32(append(listKey(z, seq), byte(kind)), block)
}

func diffKey(z uint32, to uint64) []byte {
	return binary.BigEndian.AppendUint64(appendZone(make([]byte, 0, maxDataKey), spaceDiffs, z), to)
}

// after is the least key above all keys that begin with prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
