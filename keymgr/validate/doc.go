// Package validate checks what name servers say as a validator does: it groups
// the records of an answer by RRset, verifies signatures over them, and reads
// the proofs that something is not there (RFC 4035, 5; RFC 5155, 8). It asks
// nobody and knows no clock. What it is given comes from anybody: it reads and
// computes no more of it than fixed bounds say.
package validate
