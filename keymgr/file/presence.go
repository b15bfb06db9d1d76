package file

import (
	"os"
	"sync"
	"time"
)

// presence remembers which files a folder has, for as long as the folder does not
// change: with very many keys, to ask for each of them takes a second.
type presence struct {
	mu     sync.Mutex
	looked time.Time // at the folder
	valid  bool      // the folder had been left alone for a while by then
	change time.Time // of the folder, as seen by then
	has    map[string]struct{}
}

// presenceTime is for how long a look at the folder holds, and for how long it must
// have been left alone: its time is no finer than a few milliseconds.
const presenceTime = time.Second

// knows reports whether a file was there when the folder changed last, as of a
// second ago at most. False says nothing.
func (p *presence) knows(dir, name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now() //nolint:forbidigo // files have the machine's times
	if p.looked.IsZero() || now.Sub(p.looked) > presenceTime || now.Before(p.looked) {
		p.look(dir, now)
	}
	_, ok := p.has[name]
	return ok && p.valid
}

// look forgets all where the folder changed. The caller holds mu.
func (p *presence) look(dir string, now time.Time) {
	info, err := os.Stat(dir)
	if err != nil || !info.ModTime().Equal(p.change) || p.has == nil {
		p.has = map[string]struct{}{}
	}
	p.looked, p.valid = now, err == nil
	if err == nil {
		p.change = info.ModTime()
		p.valid = now.Sub(p.change) > presenceTime
	}
}

// note keeps that a file was found after a look at the folder.
func (p *presence) note(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.valid {
		p.has[name] = struct{}{}
	}
}
