package testkit

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Await waits until fd polls readable: a message is queued on a userfaultfd, the
// process of a pidfd has exited. The test fails if that takes ten seconds.
func Await(t testing.TB, fd int, what string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(0, time.Until(end).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			t.Fatalf("wait for %s: poll: %v", what, err)
		case n == 0:
			t.Fatalf("%s did not come", what)
		default:
			return
		}
	}
}
