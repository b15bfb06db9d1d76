// Package e2e holds the tests that run the built program beside other DNS
// software, and the test of the tree's own layout.
package e2e
