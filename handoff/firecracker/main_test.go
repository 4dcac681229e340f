package firecracker

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultline/internal/testkit"
	"faultline/uffd"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// A testListener collects what is refused.
type testListener struct {
	*Listener
	refused chan error
}

func listenFor(t *testing.T, o Options) *testListener {
	t.Helper()
	l := &testListener{refused: make(chan error, 1000)}
	o.Refused = func(err error) { l.refused <- err }
	var err error
	if l.Listener, err = Listen(filepath.Join(t.TempDir(), "s"), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

// soon is how long anything here may take, with room for a loaded machine.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (l *testListener) nextRefusal(t *testing.T) error {
	t.Helper()
	select {
	case err := <-l.refused:
		return err
	case <-soon(t).Done():
		t.Fatal("nobody was refused")
		return nil
	}
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// send does one sendmsg, and writes what that did not take.
func send(t *testing.T, conn *net.UnixConn, message string, fds ...int) {
	t.Helper()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix([]byte(message), rights, nil)
	if err == nil && n < len(message) {
		_, err = conn.Write([]byte(message[n:]))
	}
	if err != nil {
		t.Error(err)
	}
}

func newUserfaultfd(t *testing.T) int {
	t.Helper()
	fd, err := uffd.Open(uffd.Options{UserModeOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fd.Close() })
	return fd.Int()
}

// good is a message that is in order.
const good = `[{"base_host_virt_addr":4096,"size":8192,"offset":0,"page_size":4096,"page_size_kib":4096}]`
