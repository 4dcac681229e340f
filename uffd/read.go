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
	buf := unix.Iovec{Base: (*byte)(unsafe.Pointer(unsafe.SliceData(msgs))), Len: uint64(uintptr(len(msgs)) * size)}
	for {
		n, errno := f.read(fd, &buf)
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

// read is read(2), but of a descriptor that is meant not to block it never does,
// whatever others have made of the flag on the open file since: RWF_NOWAIT (Linux
// 6.10 for userfaultfd) asks for that anew each time.
func (f *FD) read(fd int, buf *unix.Iovec) (uintptr, unix.Errno) {
	if f.nowait.Load() {
		const noOffset = ^uintptr(0)
		n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(buf)), 1, noOffset, noOffset, unix.RWF_NOWAIT)
		if errno != unix.EOPNOTSUPP && errno != unix.ENOSYS {
			return n, errno
		}
		f.nowait.Store(false)
	}
	n, _, errno := unix.Syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(buf.Base)), uintptr(buf.Len))
	return n, errno
}
