package pager

// A page's state is one byte: what its content is, and two flags. The bytes of a
// region lie in one flat table.
type page uint8

// What a page is, as far as the events that were read tell.
const (
	absent   page = iota // not in the client yet; its content is the source's
	present              // in the client, who may have written to it
	removed              // given up by the client: its content is zeros
	poisoned             // not to be had: every access raises SIGBUS

	content = 3 // mask of the four above
)

const (
	claimed page = 1 << 2 // an action for it was handed out and has not come back
	wanted  page = 1 << 3 // a fault on it was read and not answered yet
	again   page = 1 << 4 // something was read about it while it was claimed: what comes
	// of the claim says nothing about the page as it is now
)

func (p page) is(what page) bool  { return p&content == what }
func (p page) has(flag page) bool { return p&flag != 0 }

// become replaces the content and keeps the flags.
func (p page) become(what page) page { return p&^content | what }
