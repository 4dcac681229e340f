package handofftest_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultline/handoff"
	"faultline/handoff/handofftest"
	"faultline/internal/snapshot"
	"faultline/internal/testkit"
	"faultline/uffd"
)

func TestMain(m *testing.M) {
	handofftest.Main()
	parent()
	testkit.Main(m)
}

// imageFile makes a guest-like image and maps it.
func imageFile(t *testing.T, size int64) (path string, image []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "memory")
	if err := snapshot.WriteFile(path, size, 1); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Private and writable, so that a test can spoil it without spoiling the file.
	image, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(image) })
	return path, image
}

// start starts a client that is killed with the test, and takes its handshake
// with as little code as possible: the real server is tested elsewhere.
func start(t *testing.T, config handofftest.Config) (*handofftest.Client, *handoff.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	config.Socket = filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: config.Socket})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := handofftest.Start(ctx, config)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		c.Wait()
	})
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	server := receive(t, c, conn)
	t.Cleanup(func() { // before the client is killed, whom Serve's cleanup precedes
		c.Kill()
		c.Wait()
		server.Close()
	})
	return c, server
}

func receive(t *testing.T, c *handofftest.Client, conn *net.UnixConn) *handoff.Client {
	t.Helper()
	message, control := make([]byte, 4096), make([]byte, 64)
	n, controlLen, _, _, err := conn.ReadMsgUnix(message, control)
	if err != nil || n == 0 {
		t.Fatalf("received %d bytes: %v", n, err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlLen])
	if err != nil || len(messages) != 1 {
		t.Fatalf("received %d control messages: %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("received descriptors %v: %v", fds, err)
	}
	fd, err := uffd.Adopt(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(c.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &handoff.Client{UFFD: fd, Regions: c.Regions, PID: c.PID, PidFD: pidfd, Conn: conn}
}

// check fails the test if the client sees anything wrong.
func check(t *testing.T, c *handofftest.Client, pages ...uint64) {
	t.Helper()
	r, err := c.Check(pages...)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
}

func touch(t *testing.T, c *handofftest.Client, spec handofftest.TouchSpec) *handofftest.TouchResult {
	t.Helper()
	r, err := c.Touch(spec)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
