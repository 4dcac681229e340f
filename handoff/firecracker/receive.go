package firecracker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"faultline/uffd"
)

// maxDescriptors is SCM_MAX_FD, the most that one message can carry. Room for all
// of them is what lets us close them: the kernel drops what does not fit.
const maxDescriptors = 253

// receive reads one message and the userfaultfd that comes with it. On any error
// every descriptor that came is closed.
func receive(conn *net.UnixConn) (message []byte, fd *uffd.FD, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var received []int
	defer func() {
		for _, fd := range received {
			unix.Close(fd)
		}
	}()
	var f frame
	piece := make([]byte, 16<<10)
	control := make([]byte, unix.CmsgSpace(maxDescriptors*4))
	for !f.complete {
		n, fds, err := readPiece(raw, piece, control)
		received = append(received, fds...)
		switch {
		case len(received) > 1:
			return nil, nil, fmt.Errorf("%w: %d", ErrManyDescriptors, len(received))
		case err != nil:
			return nil, nil, err
		case len(message)+n > MaxMessage:
			return nil, nil, fmt.Errorf("%w: no end within %d bytes", ErrTooLarge, MaxMessage)
		}
		message = append(message, piece[:n]...)
		if err := f.add(piece[:n]); err != nil {
			return nil, nil, err
		}
	}
	if len(received) == 0 {
		return nil, nil, ErrNoDescriptor
	}
	if fd, err = uffd.Adopt(received[0]); err != nil {
		return nil, nil, err
	}
	received = nil // fd's now
	return message, fd, nil
}

// readPiece does one recvmsg(2). Descriptors may come with an error, too.
func readPiece(raw syscall.RawConn, piece, control []byte) (n int, fds []int, err error) {
	var controlLen, flags int
	var callErr error
	call := func(fd uintptr) (done bool) {
		for {
			n, controlLen, flags, _, callErr = unix.Recvmsg(int(fd), piece, control, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			if callErr != unix.EINTR {
				return callErr != unix.EAGAIN
			}
		}
	}
	err = raw.Read(call)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// What came in time counts, even if we only get to it now: on a busy machine,
		// or when a crowd came after it.
		err = raw.Control(func(fd uintptr) { call(fd) })
	}
	if err == nil && callErr == unix.EAGAIN {
		return 0, nil, ErrTimeout
	}
	if err = errors.Join(err, callErr); err != nil {
		return 0, nil, fmt.Errorf("receive the message: %w", err)
	}
	fds, err = descriptors(control[:controlLen])
	switch {
	case flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0:
		err = fmt.Errorf("%w (flags %#x); raise the limit of open files", ErrTruncated, flags)
	case err == nil && n == 0:
		err = ErrEnded
	}
	return n, fds, err
}

// descriptors takes all of them out of control messages, also those that come
// before something it can't read.
func descriptors(control []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		more, rightsErr := unix.ParseUnixRights(&m)
		fds = append(fds, more...)
		err = errors.Join(err, rightsErr)
	}
	if err != nil {
		err = fmt.Errorf("control message: %w", err)
	}
	return fds, err
}
