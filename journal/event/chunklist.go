package event

import (
	"encoding/json"
	"fmt"
)

const (
	// MaxDirect is how many chunks a manifest names itself; a longer list
	// stands in chunks of its own.
	MaxDirect = 1000
	// MaxListed is how many chunks one chunk of an indirect list names.
	MaxListed = 4096
)

// EncodeChunkList returns the raw bytes of one chunk of an indirect list: a
// JSON array of at most MaxListed chunks.
func EncodeChunkList(part []Chunk) ([]byte, error) {
	if len(part) == 0 || len(part) > MaxListed {
		return nil, fmt.Errorf("encode chunk list: %d entries", len(part))
	}
	raw, err := json.Marshal(part)
	if err != nil {
		return nil, fmt.Errorf("encode chunk list: %w", err)
	}
	return raw, nil
}

// DecodeChunkList reads what EncodeChunkList wrote.
func DecodeChunkList(raw []byte) ([]Chunk, error) {
	var part []Chunk
	if err := unmarshal(raw, &part); err != nil {
		return nil, fmt.Errorf("decode chunk list: %w", err)
	}
	if len(part) == 0 || len(part) > MaxListed {
		return nil, fmt.Errorf("decode chunk list: %d entries", len(part))
	}
	return part, nil
}
