package firecracker

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// A peer is the process at the other end of a connection.
type peer struct {
	pid   int
	pidfd int
}

// identify finds out who has connected. SO_PEERPIDFD (Linux 6.5) names the very
// process that called connect(2); a pid could have been reused since.
func identify(conn *net.UnixConn) (peer, error) {
	var p peer
	err := control(conn, func(fd int) error {
		creds, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return fmt.Errorf("SO_PEERCRED: %w", err)
		}
		p.pid = int(creds.Pid)
		p.pidfd, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		if errors.Is(err, unix.ENOPROTOOPT) {
			p.pidfd, err = openPid(p.pid)
		} else if err != nil {
			err = fmt.Errorf("SO_PEERPIDFD: %w", err)
		}
		return err
	})
	if err == nil && exited(p.pidfd) {
		unix.Close(p.pidfd)
		err = ErrDead
	}
	if errors.Is(err, unix.ESRCH) {
		err = fmt.Errorf("%w: %w", ErrDead, err)
	}
	return p, err
}

// openPid is for kernels that can't say more than a number.
func openPid(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open of process %d: %w", pid, err)
	}
	return fd, nil
}

// exited asks whether a process has, without waiting.
func exited(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == 1
		}
	}
}

// control runs f on the connection's descriptor.
func control(conn *net.UnixConn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
