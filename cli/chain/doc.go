// Package chain follows the chain of trust to a name as a validator does, from
// a trust anchor down, and says where it breaks. Unlike a validator it asks
// every server at each step, and goes on where a validator would be content, so
// that what one server of several does wrong is found too.
//
// What servers say is nobody's word: how many questions are asked, how many
// records, keys and signatures are looked at, how many aliases and delegations
// are followed, and how long all of it takes is bounded.
package chain
