// Package xfr speaks the transfer protocol: SOA, AXFR, IXFR and NOTIFY over
// UDP and TCP, TSIG and access lists. It knows zones as read views only.
package xfr
