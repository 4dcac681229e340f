package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPath is what sockaddr_un has room for, less the final zero.
const maxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// bind makes a listening socket at path that only this user may connect to. A
// socket file that nobody listens at any more is replaced.
func bind(path string) (*net.UnixListener, error) {
	if path == "" || path[0] == '@' || path[0] == 0 {
		return nil, fmt.Errorf("%w: %q is not a path in the file system, which has permissions", ErrBadPath, path)
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("%w: it has %d bytes, and a socket's at most %d; use a shorter directory or a relative path", ErrBadPath, len(path), maxPath)
	}
	// Servers that start at the same time must not take each other's socket,
	// bound but not listening yet, for a dead one.
	unlock, err := lockDirectory(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	l, err := listen(path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	return listen(path)
}

func listen(path string) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return restrict(raw)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// restrict sets the mode that the file will have. bind(2) takes it from the
// socket, less the umask: so there is no moment at which others may connect, and
// the umask, which all threads share, is left alone.
func restrict(raw syscall.RawConn) error {
	var modeErr error
	if err := raw.Control(func(fd uintptr) { modeErr = unix.Fchmod(int(fd), 0o600) }); err != nil {
		return err
	}
	if modeErr != nil {
		return fmt.Errorf("set the socket's mode: %w", modeErr)
	}
	return nil
}

// removeStale removes the socket of a server that is dead. The directory must be
// locked.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return ErrNotSocket
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return ErrInUse
	}
	if errors.Is(err, unix.EAGAIN) { // its backlog is full
		return ErrInUse
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("find out whether a server listens: %w", err)
	}
	return os.Remove(path)
}

// lockDirectory keeps other servers from binding in a directory meanwhile.
func lockDirectory(path string) (unlock func(), err error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { dir.Close() }, nil
}
