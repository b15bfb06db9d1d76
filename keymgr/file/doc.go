// Package file keeps private keys in a folder, one PKCS#8 PEM file a key. The
// folder is 0700, its files 0600; what others may read is refused.
package file
