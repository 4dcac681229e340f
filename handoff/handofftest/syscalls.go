package handofftest

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A pipe moves bytes between memory and the kernel, whose access to a missing
// page is a fault in kernel mode. A page that can't be had is EFAULT.
type pipe struct{ read, write int }

func newPipe() (*pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return &pipe{read: fds[0], write: fds[1]}, nil
}

// close does nothing to a nil pipe.
func (p *pipe) close() {
	if p != nil {
		unix.Close(p.read)
		unix.Close(p.write)
	}
}

// load has the kernel read the first byte of page.
func (p *pipe) load(page []byte) error {
	if err := again(func() (int, error) { return unix.Write(p.write, page[:1]) }); err != nil {
		return err
	}
	var b [1]byte
	return again(func() (int, error) { return unix.Read(p.read, b[:]) })
}

// store has the kernel write word to memory.
func (p *pipe) store(to []byte, word [8]byte) error {
	if err := again(func() (int, error) { return unix.Write(p.write, word[:]) }); err != nil {
		return err
	}
	err := again(func() (int, error) { return unix.Read(p.read, to) })
	if err != nil { // the word is still in the pipe
		again(func() (int, error) { return unix.Read(p.read, word[:]) })
	}
	return err
}

// again repeats a call that a signal interrupted.
func again(call func() (int, error)) error {
	for {
		if _, err := call(); err != unix.EINTR {
			return err
		}
	}
}

// processLoad reads the first byte of page as another process would.
func processLoad(page []byte) error {
	var b [1]byte
	local := unix.Iovec{Base: &b[0], Len: 1}
	remote := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&page[0])), Len: 1}
	return again(func() (int, error) {
		return unix.ProcessVMReadv(unix.Getpid(), []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	})
}

// processStore writes word as another process would.
func processStore(to []byte, word [8]byte) error {
	local := unix.Iovec{Base: &word[0], Len: 8}
	remote := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&to[0])), Len: 8}
	return again(func() (int, error) {
		return unix.ProcessVMWritev(unix.Getpid(), []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	})
}

// mincore fills in with one byte for each 4096 of memory.
func mincore(memory, in []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE,
		uintptr(unsafe.Pointer(&memory[0])), uintptr(len(memory)), uintptr(unsafe.Pointer(&in[0])))
	if errno != 0 {
		return errno
	}
	return nil
}
