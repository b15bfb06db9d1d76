package pipeline

import "sluice/journal/event"

// software names this process's software in events; empty where it is not
// known.
func (e *Engine) software() string {
	if e.cfg.Software == nil {
		return ""
	}
	return e.cfg.Software()
}

// nameSoftware enters this process's software into facts that are to say what
// made them.
func (e *Engine) nameSoftware(f event.Facts) {
	switch f := f.(type) {
	case *event.InstanceLoaded:
		f.Software = e.software()
	case *event.InstanceSigned:
		f.Software = e.software()
	case *event.InstancePublished:
		f.Software = e.software()
	}
}
