package firecracker

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultline/handoff"
	"faultline/uffd"
)

func TestHandshakeAccepts(t *testing.T) {
	for _, test := range []struct {
		name string
		send func(t *testing.T, conn *net.UnixConn, fd int)
	}{
		{"and stays", func(t *testing.T, conn *net.UnixConn, fd int) {
			send(t, conn, good, fd)
		}},
		{"and hangs up", func(t *testing.T, conn *net.UnixConn, fd int) {
			send(t, conn, good, fd)
			conn.Close()
		}},
		{"byte by byte, descriptor first", func(t *testing.T, conn *net.UnixConn, fd int) {
			send(t, conn, good[:1], fd)
			for i := range good[1:] {
				send(t, conn, good[i+1:i+2])
			}
		}},
		{"descriptor in the second piece", func(t *testing.T, conn *net.UnixConn, fd int) {
			send(t, conn, good[:10])
			send(t, conn, good[10:], fd)
		}},
		{"longer than one read", func(t *testing.T, conn *net.UnixConn, fd int) {
			send(t, conn, "["+strings.Repeat(" ", 300_000)+good[1:], fd)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := listenFor(t, Options{})
			conn := dial(t, l.Addr())
			go test.send(t, conn, newUserfaultfd(t))
			client, err := l.Accept(soon(t))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if client.PID != os.Getpid() || exited(client.PidFD) || client.Conn == nil {
				t.Errorf("client %d with pidfd %d", client.PID, client.PidFD)
			}
			if len(client.Regions) != 1 || client.Regions[0] != (handoff.Region{Address: 4096, Size: 8192, PageSize: 4096}) {
				t.Errorf("regions are %+v", client.Regions)
			}
			if _, err := client.UFFD.Info(); err != nil {
				t.Errorf("descriptor: %v", err)
			}
			for _, fd := range []int{client.UFFD.Int(), client.PidFD} {
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("descriptor %d has flags %#x (%v): a child would inherit it", fd, flags, err)
				}
			}
		})
	}
}

func TestHandshakeRefuses(t *testing.T) {
	for _, test := range []struct {
		name string
		want error
		send func(t *testing.T, conn *net.UnixConn)
	}{
		{"no descriptor", ErrNoDescriptor, func(t *testing.T, conn *net.UnixConn) {
			send(t, conn, good)
		}},
		{"two descriptors", ErrManyDescriptors, func(t *testing.T, conn *net.UnixConn) {
			send(t, conn, good, newUserfaultfd(t), newUserfaultfd(t))
		}},
		{"a descriptor with each of two pieces", ErrManyDescriptors, func(t *testing.T, conn *net.UnixConn) {
			send(t, conn, good[:9], newUserfaultfd(t))
			send(t, conn, good[9:], newUserfaultfd(t))
		}},
		{"as many descriptors as can be", ErrManyDescriptors, func(t *testing.T, conn *net.UnixConn) {
			fds := make([]int, maxDescriptors)
			for i := range fds {
				fds[i] = int(os.Stderr.Fd())
			}
			send(t, conn, good, fds...)
		}},
		{"a file", uffd.ErrNotUserfaultfd, func(t *testing.T, conn *net.UnixConn) {
			send(t, conn, good, int(os.Stderr.Fd()))
		}},
		{"a userfaultfd without handshake", uffd.ErrNotNegotiated, func(t *testing.T, conn *net.UnixConn) {
			send(t, conn, good, rawUserfaultfd(t))
		}},
		{"hang-up at once", ErrEnded, func(t *testing.T, conn *net.UnixConn) {
			conn.Close()
		}},
		{"hang-up half-way", ErrEnded, func(t *testing.T, conn *net.UnixConn) {
			send(t, conn, good[:20], newUserfaultfd(t))
			conn.Close()
		}},
		{"silence", ErrTimeout, func(*testing.T, *net.UnixConn) {}},
		{"silence half-way", ErrTimeout, func(t *testing.T, conn *net.UnixConn) {
			send(t, conn, good[:20], newUserfaultfd(t))
		}},
		{"not an array", ErrBadMessage, func(t *testing.T, conn *net.UnixConn) {
			send(t, conn, "GET / HTTP/1.1\r\n\r\n", newUserfaultfd(t))
		}},
		{"trailing data", ErrBadMessage, func(t *testing.T, conn *net.UnixConn) {
			send(t, conn, good+"[]", newUserfaultfd(t))
		}},
		{"bad regions", handoff.ErrBadRegions, func(t *testing.T, conn *net.UnixConn) {
			send(t, conn, strings.Replace(good, "8192", "8193", 1), newUserfaultfd(t))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Options{}
			if test.want == ErrTimeout {
				o.Timeout = 50 * time.Millisecond
			}
			l := listenFor(t, o)
			conn := dial(t, l.Addr())
			test.send(t, conn)
			err := l.nextRefusal(t)
			var handshake *HandshakeError
			if !errors.Is(err, test.want) || !errors.As(err, &handshake) || handshake.PID != os.Getpid() {
				t.Errorf("got %v, want %v", err, test.want)
			}
			acceptGood(t, l)
		})
	}
}

// acceptGood checks that the listener still serves.
func acceptGood(t *testing.T, l *testListener) {
	t.Helper()
	conn := dial(t, l.Addr())
	send(t, conn, good, newUserfaultfd(t))
	client, err := l.Accept(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// rawUserfaultfd has not seen UFFDIO_API.
func rawUserfaultfd(t *testing.T) int {
	t.Helper()
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|1, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { unix.Close(int(fd)) })
	return int(fd)
}

func TestHugeMessageIsNotBuffered(t *testing.T) {
	l := listenFor(t, Options{})
	conn := dial(t, l.Addr())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	send(t, conn, "[", newUserfaultfd(t))
	piece := []byte(strings.Repeat(" ", 64<<10))
	sent, err := 0, error(nil)
	for sent < 10<<20 && err == nil {
		var n int
		n, err = conn.Write(piece)
		sent += n
	}
	if err == nil {
		t.Errorf("all %d bytes were taken", sent)
	}
	if err := l.nextRefusal(t); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
	acceptGood(t, l)
}

// With no descriptor to be had the kernel drops what is sent.
func TestDescriptorsLostOnTheWay(t *testing.T) {
	if _, fds, err := readLost(t); !errors.Is(err, ErrTruncated) || len(fds) == 0 {
		t.Errorf("got %d descriptors and %v, want ErrTruncated", len(fds), err)
	}
}

// readLost reads a message with three descriptors with room for one.
func readLost(t *testing.T) (int, []int, error) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	file := os.NewFile(uintptr(fds[0]), "socket")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := unix.Sendmsg(fds[1], []byte(good), unix.UnixRights(2, 2, 2), nil, 0); err != nil {
		t.Fatal(err)
	}
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n, got, err := readPiece(raw, make([]byte, 4096), make([]byte, unix.CmsgSpace(4)))
	for _, fd := range got {
		// From the first moment on: another goroutine may start a program.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d has flags %#x (%v)", fd, flags, err)
		}
		unix.Close(fd)
	}
	return n, got, err
}
