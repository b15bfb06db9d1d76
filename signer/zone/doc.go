// Package zone is the data model that every other package shares: names,
// RRsets, their canonical order, zone files, chunks and the set hash.
//
// A zone is a stream of items in canonical order. An item is a key (kind,
// owner, type) and a value (one RRset in wire form). Items flow through the
// program as plain byte slices, so that a zone of a million names needs no
// more memory than the buffers it passes through.
package zone
