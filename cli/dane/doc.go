// Package dane makes TLSA records and checks certificates against them (RFC
// 6698, RFC 7671), and gets the certificates of a server, over TLS at once or
// after STARTTLS. That records come from a validated answer is for its callers.
package dane
