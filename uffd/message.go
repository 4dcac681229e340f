package uffd

import "fmt"

// EventKind is the kind of a Message.
type EventKind uint8

// The kinds of struct uffd_msg.
const (
	EventKindPagefault EventKind = 0x12
	EventKindFork      EventKind = 0x13
	EventKindRemap     EventKind = 0x14
	EventKindRemove    EventKind = 0x15
	EventKindUnmap     EventKind = 0x16
)

// String is the header's name without UFFD_EVENT_, or the number of an unknown kind.
func (k EventKind) String() string {
	switch k {
	case EventKindPagefault:
		return "PAGEFAULT"
	case EventKindFork:
		return "FORK"
	case EventKindRemap:
		return "REMAP"
	case EventKindRemove:
		return "REMOVE"
	case EventKindUnmap:
		return "UNMAP"
	}
	return fmt.Sprintf("%#x", uint8(k))
}

// FaultFlags tell what kind of access faulted.
type FaultFlags uint64

// The flags of a page fault. None of them means a read of a missing page.
const (
	FaultWrite FaultFlags = 1 << iota // a write
	FaultWP                           // a write to a write-protected page
	FaultMinor                        // the page is in the page cache but not mapped
)

// A Message is one struct uffd_msg as the kernel wrote it. Kinds that are not
// known here keep their bytes.
type Message struct{ raw uffdMsg }

// A Fault is the content of a page-fault message.
type Fault struct {
	Flags FaultFlags
	// Address is rounded down to the page unless ExactAddress was negotiated.
	Address uint64
	// Thread is the faulting thread where ThreadID was negotiated, else 0.
	Thread uint32
}

// Kind tells which of the accessors applies.
func (m *Message) Kind() EventKind { return EventKind(m.raw.event) }

// Fault is the content of a message of kind EventKindPagefault.
func (m *Message) Fault() Fault {
	return Fault{Flags: FaultFlags(m.raw.arg[0]), Address: m.raw.arg[1], Thread: uint32(m.raw.arg[2])}
}

// Removed is the range of a message of kind EventKindRemove or EventKindUnmap.
// It is delivered before the memory is given up; reading it lets that go on.
func (m *Message) Removed() Range {
	return Range{Start: m.raw.arg[0], Len: m.raw.arg[1] - m.raw.arg[0]}
}
