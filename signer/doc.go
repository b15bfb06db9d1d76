// Package signer makes signed zones: contents, keys, parameters and a time go
// in, the records that the signer makes come out. It does no I/O, reads no
// clock and knows no journal.
package signer
