// Package share hands secrets from one process of an instance to another:
// private keys and TSIG secrets, encrypted to the one process that may have
// them, signed by the one that sends them, and bound to what they are for. What
// a process holds it proves by a signature over a challenge that only it can
// have read.
package share
