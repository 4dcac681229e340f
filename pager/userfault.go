package pager

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"faultline/uffd"
)

// ErrFeatures means that a userfaultfd reports events that an engine does not
// follow, or hides what it must hear.
var ErrFeatures = errors.New("unsuitable userfaultfd features")

// unsuitable are features under which the page table would drift from the truth:
// events about memory that is moved, unmapped or forked, and faults that are
// signals and never messages.
const unsuitable = uffd.EventFork | uffd.EventRemap | uffd.EventUnmap | uffd.Sigbus

// hugePage is the largest page size that zeros are kept for.
const hugePage = 2 << 20

// Userfault is the Target of a userfaultfd.
type Userfault struct {
	fd       *uffd.FD
	messages []uffd.Message
	zeros    []byte // a mapped, never written huge page
}

// NewUserfault makes a target of a descriptor, which stays the caller's and must
// outlive it.
func NewUserfault(fd *uffd.FD) (*Userfault, error) {
	if bad := fd.Features() & unsuitable; bad != 0 {
		return nil, fmt.Errorf("%w: %v was negotiated", ErrFeatures, bad)
	}
	zeros, err := unix.Mmap(-1, 0, hugePage, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map a page of zeros: %w", err)
	}
	return &Userfault{fd: fd, messages: make([]uffd.Message, 64), zeros: zeros}, nil
}

// Close gives back the target's memory, not the descriptor.
func (u *Userfault) Close() error { return unix.Munmap(u.zeros) }

// Pollable is the userfaultfd.
func (u *Userfault) Pollable() int { return u.fd.Int() }

// Events reads messages. A kind that the features rule out is an error, since
// skipping it could mean wrong bytes.
func (u *Userfault) Events(buf []Event) (int, error) {
	n, err := u.fd.Read(u.messages[:min(len(buf), len(u.messages))])
	if err != nil {
		return 0, err
	}
	for i := range u.messages[:n] {
		switch m := &u.messages[i]; m.Kind() {
		case uffd.EventKindPagefault:
			f := m.Fault()
			if f.Flags&(uffd.FaultWP|uffd.FaultMinor) != 0 {
				return 0, fmt.Errorf("fault at %#x is not for a missing page (flags %#x)", f.Address, uint64(f.Flags))
			}
			buf[i] = Event{Kind: EventFault, Address: f.Address}
		case uffd.EventKindRemove:
			r := m.Removed()
			buf[i] = Event{Kind: EventRemove, Address: r.Start, Size: r.Len}
		default:
			return 0, fmt.Errorf("userfaultfd event %v was not negotiated", m.Kind())
		}
	}
	return n, nil
}

// Copy is UFFDIO_COPY.
func (u *Userfault) Copy(span Span, content []byte) (int64, error) {
	return u.fd.Copy(span.Address, content, 0)
}

// Zero is UFFDIO_ZEROPAGE, or, for huge pages, which can't, UFFDIO_COPY of zeros.
func (u *Userfault) Zero(span Span) (done int64, err error) {
	if span.PageSize == 4096 {
		return u.fd.Zeropage(uffd.Range{Start: span.Address, Len: span.Size}, 0)
	}
	for done < int64(span.Size) {
		n, err := u.fd.Copy(span.Address+uint64(done), u.zeros[:span.PageSize], 0)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Poison is UFFDIO_POISON.
func (u *Userfault) Poison(span Span) (int64, error) {
	return u.fd.Poison(uffd.Range{Start: span.Address, Len: span.Size}, 0)
}

// Wake is UFFDIO_WAKE.
func (u *Userfault) Wake(span Span) error {
	return u.fd.Wake(uffd.Range{Start: span.Address, Len: span.Size})
}
