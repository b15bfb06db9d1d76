// Package pipeline moves zones from source to publication: it folds the
// journal's events into state, decides what is to be done, does it, and
// appends what came of it. DESIGN.md has the state diagram.
package pipeline
