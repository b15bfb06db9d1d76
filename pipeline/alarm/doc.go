// Package alarm tells somebody of what needs a person: by a command, by a POST
// to a web server, or both.
//
// It holds what is so now against what each target was told, and sends the
// difference: a condition is told when it has lasted for Delay, when it became
// worse, again each Repeat, and when it has been gone for Delay. So a message
// that could not be sent is not queued but follows anew from how things are
// then, nothing grows while a target is away, and no condition is told twice.
// What was told stands in a file, and holds over a restart; where that file is
// lost, what is still so is told once more.
//
// Nothing waits for a target: each has a goroutine of its own, and whoever asks
// how things are is never held up by it.
package alarm
