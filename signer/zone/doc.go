// Package zone is the data model that every other package shares: names,
// RRsets, their canonical order, zone files, chunks and the set hash.
//
// A zone is a stream of items in canonical order. An item is a key (kind,
// owner, type) and a value (one RRset in wire form). Items flow through the
// program as plain byte slices, so that a zone of a million names needs no
// more memory than the buffers it passes through.
//
// Checker holds no more than a name and the name servers of two NS RRsets:
// glue sorts right behind its delegation.
//
// Errors quote the line that they are about, but nothing of a file of which
// not one record can be read: it may be a private key.
//
// Limits: an RRset's value is at most MaxValue bytes, so that it fits into a
// chunk of at most MaxChunk; a record in a zone file is at most 1 MiB of
// text without comments; one $GENERATE makes at most 1,048,576 records; $INCLUDE goes 20 files
// deep. What goes beyond them is an error that names the place.
package zone
