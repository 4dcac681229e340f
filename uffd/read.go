package uffd

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read takes queued messages, as many as there are and as fit, and returns how
// many. On a non-blocking descriptor 0 means that none is queued, which can
// happen even after poll(2) said otherwise. Page faults come before all other
// events, whatever their age: read until 0 before acting on any.
//
// userfaultfd(2), "Reading from the userfaultfd structure".
func (f *FD) Read(msgs []Message) (int, error) {
	fd := f.Int()
	if fd < 0 {
		return 0, ErrClosed
	}
	if len(msgs) == 0 {
		return 0, nil
	}
	const size = unsafe.Sizeof(Message{})
	for {
		n, _, errno := unix.Syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(msgs))), uintptr(len(msgs))*size)
		switch errno {
		case 0:
			return int(n / size), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, fmt.Errorf("read userfaultfd %d: %w", fd, errno)
		}
	}
}
