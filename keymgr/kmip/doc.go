// Package kmip is the keystore on KMIP servers: key managers and HSMs that speak
// the Key Management Interoperability Protocol of OASIS, versions 1.2 to 2.1.
package kmip
