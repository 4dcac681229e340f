package uffd

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

var (
	// ErrClosed is returned by every operation on a descriptor after Close or Disown.
	ErrClosed = errors.New("userfaultfd is closed")
	// ErrNotUserfaultfd means that an adopted descriptor is something else.
	ErrNotUserfaultfd = errors.New("descriptor is not a userfaultfd")
	// ErrNotNegotiated means that nobody has issued UFFDIO_API on the descriptor.
	ErrNotNegotiated = errors.New("UFFDIO_API was never issued on this userfaultfd")
	// ErrUnsupported means that the kernel lacks a feature that was required.
	ErrUnsupported = errors.New("not supported by this kernel")
)

// An Error is a failed operation on a range.
type Error struct {
	Op    string // the kernel's name of the operation, such as "UFFDIO_COPY"
	Range Range
	// Done is how many bytes from the start of the range were completed before
	// the failure. The kernel reports it for Copy, Zeropage and Poison.
	Done  int64
	Errno unix.Errno
}

func (e *Error) Error() string {
	done := ""
	if e.Done > 0 {
		done = fmt.Sprintf(" after %#x bytes", e.Done)
	}
	return fmt.Sprintf("%s %v%s: %v%s", e.Op, e.Range, done, e.Errno, e.hint())
}

// Unwrap gives the errno, for errors.Is.
func (e *Error) Unwrap() error { return e.Errno }

// hint says what an errno means for this family of calls, where the plain text misleads.
func (e *Error) hint() string {
	switch e.Errno {
	case unix.EAGAIN:
		return " (a layout event is unread, or a lock was contended: read events, then retry the rest)"
	case unix.ENOENT:
		return " (not inside one registered mapping)"
	case unix.ESRCH:
		return " (the address space is gone)"
	case unix.EBUSY:
		return " (registered with another userfaultfd)"
	}
	return ""
}
