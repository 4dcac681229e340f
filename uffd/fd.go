package uffd

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An FD is an owned userfaultfd: whoever has it must Close or Disown it.
//
// Operations may be issued from several goroutines. Close must not run at the
// same time as another operation: the number could by then name another file.
type FD struct {
	fd       atomic.Int32 // -1 once closed or disowned
	nowait   atomic.Bool  // reads must not block, and the kernel may be asked for that
	features Features
}

func newFD(fd int, features Features, blocking bool) *FD {
	f := &FD{features: features}
	f.nowait.Store(!blocking)
	f.fd.Store(int32(fd))
	return f
}

// Features are the negotiated ones.
func (f *FD) Features() Features { return f.features }

// Int is the descriptor's number, for polling and for passing it on; it stays
// owned by f. It is -1 after Close or Disown.
func (f *FD) Int() int { return int(f.fd.Load()) }

// Close gives up the descriptor. Calling it again does nothing.
//
// Where this was the last reference, threads that wait in a fault go on and see
// zeros, and so does everyone who touches a missing page later. See the package
// documentation, "Deadlocks", 4.
func (f *FD) Close() error {
	fd := f.fd.Swap(-1)
	if fd < 0 {
		return nil
	}
	if err := unix.Close(int(fd)); err != nil {
		return fmt.Errorf("close userfaultfd %d: %w", fd, err)
	}
	return nil
}

// Disown hands the descriptor to the caller, who must close it. It is -1 if f
// was closed before.
func (f *FD) Disown() int { return int(f.fd.Swap(-1)) }

// Dup makes a second owned reference to the same open file, close-on-exec.
func (f *FD) Dup() (*FD, error) {
	fd := f.Int()
	if fd < 0 {
		return nil, ErrClosed
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate userfaultfd %d: %w", fd, err)
	}
	return newFD(dup, f.features, !f.nowait.Load()), nil
}

// ioctl is the one place from which this package enters the kernel with a
// request. EINTR is retried here; every other errno goes to the caller as it is.
func ioctl(fd int, request uintptr, arg unsafe.Pointer) unix.Errno {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		if errno != unix.EINTR {
			return errno
		}
	}
}
