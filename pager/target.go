package pager

// A Target is how pages get into a client. Its methods are called from one
// goroutine and don't block.
//
// The installing ones return how many bytes from the start of the span they did,
// and if that is not all, an error that unwraps to the errno of userfaultfd's
// corresponding ioctl; the core's answer depends on it.
type Target interface {
	// Pollable is a descriptor that polls readable while Events has something.
	Pollable() int
	// Events takes queued events. Fewer than fit means that no more were queued.
	Events(buf []Event) (int, error)
	Copy(span Span, content []byte) (int64, error)
	Zero(span Span) (int64, error)
	Poison(span Span) (int64, error)
	Wake(span Span) error
}

// EventKind is the kind of an Event.
type EventKind uint8

// What a target reports.
const (
	EventFault  EventKind = iota + 1 // someone waits for the page at Address
	EventRemove                      // Size bytes from Address are given up
)

// An Event is something that the client did.
type Event struct {
	Kind    EventKind
	Address uint64
	Size    uint64
}
