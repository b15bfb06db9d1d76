// Package pkcs11 is the keystore on PKCS#11 tokens: HSMs, smart cards, SoftHSM.
// Only this package needs cgo; built without, it says so wherever it is used.
package pkcs11
