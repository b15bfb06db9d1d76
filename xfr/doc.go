// Package xfr speaks the transfer protocol as a server: SOA, AXFR (RFC 5936)
// and IXFR (RFC 1995) over UDP and TCP, with TSIG (RFC 8945), extended errors
// (RFC 8914) and access lists. It knows zones as read views only.
//
// Where the standards leave a choice:
//
//   - SOA queries are answered to anyone, transfers only to those whom the
//     zone's view allows.
//   - AXFR over UDP is not implemented and says so. IXFR over UDP sends the
//     diffs if they fit into one datagram, else the SOA alone.
//   - A message of a stream ends near 16 KiB, the reach of compression
//     pointers: with 48 KiB messages a signed top-level domain took 14 % more
//     bytes and no less time. Names are compressed against names of the same
//     case only, so case arrives as it was loaded.
//   - Requests on a TCP connection are answered one after another.
//
// A transfer that goes wrong after its first message closes the connection:
// half a zone is never ended by an SOA.
package xfr
