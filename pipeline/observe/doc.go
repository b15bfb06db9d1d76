// Package observe asks what the world sees of a zone: its public name servers
// for SOA, DNSKEY and signatures, its parent's servers for DS. What a parent
// says is validated from a trust anchor down. It holds no keys and no state of
// zones; what it remembers saves questions and may be lost.
package observe
