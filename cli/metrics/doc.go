// Package metrics tells Prometheus how a process and its zones are. Everything is
// read when it is scraped: zones have no goroutine and no counter of their own.
// The rules and the dashboard that belong to it are files of this package.
package metrics
