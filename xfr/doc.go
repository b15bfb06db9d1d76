// Package xfr speaks the transfer protocol on both sides: SOA, AXFR
// (RFC 5936), IXFR (RFC 1995), NOTIFY (RFC 1996) and UPDATE (RFC 2136) over UDP, TCP and TLS
// (RFC 9103), with TSIG (RFC 8945), extended errors (RFC 8914) and access
// lists. It knows zones as read views and as streams of records only, and
// never holds one.
//
// Where the standards leave a choice, the Server does this:
//
//   - SOA queries are answered to anyone, transfers only to those whom the
//     zone's view allows.
//   - AXFR over UDP is not implemented and says so. IXFR over UDP sends the
//     diffs if they fit into one datagram, else the SOA alone.
//   - Steps of an IXFR are made one by their net difference (RFC 1995, 6), 32
//     at a time. What would be larger than the zone is answered with the zone.
//   - A message of a stream ends near 16 KiB, the reach of compression
//     pointers: with 48 KiB messages a signed top-level domain took 14 % more
//     bytes and no less time. Names are compressed against names of the same
//     case only, so case arrives as it was loaded.
//   - A zone is read, encoded and sent by three goroutines side by side.
//   - Requests on a TCP connection are answered one after another.
//   - An update is read only where somebody takes updates, and only its signature and
//     form are looked at here. Over TCP it may fill a message, where other requests
//     have 4 KiB. Over UDP it is answered aside: 64 at a time, further ones are lost.
//   - A question for the SOA of a name below a zone that takes updates is answered with
//     that zone's SOA in the authority section, so that nsupdate finds the zone.
//   - Transfers over TLS are not padded.
//
// A transfer that goes wrong after its first message closes the connection:
// half a zone is never ended by an SOA.
//
// The Client does this:
//
//   - A transfer has a connection of its own. What arrives is checked record
//     by record and handed on at once; it counts when Transfer has returned
//     without an error.
//   - Names in RDATA are decompressed for the types that RFC 3597, 4 names,
//     and must not be compressed in others. Case is kept.
//   - An IXFR's steps must join from the serial held to the new one, and each
//     must go forward. What does not is ErrBrokenIXFR, never a guess; a
//     refused IXFR is asked for as AXFR.
//   - Over UDP what does not answer the question is passed over, and with
//     TSIG so is a refusal without a signature, as anybody may have sent it.
//   - An endpoint over TLS is spoken to over TLS alone, for SOA and NOTIFY
//     too.
package xfr
