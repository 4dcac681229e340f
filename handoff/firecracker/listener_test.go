package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultline/handoff"
)

func TestSilentClientsDoNotDelayAGoodOne(t *testing.T) {
	l := listenFor(t, Options{Timeout: time.Hour, Handshakes: 8})
	for range 40 {
		dial(t, l.Addr())
	}
	begin := time.Now()
	acceptGood(t, l)
	t.Logf("accepted after %v", time.Since(begin))
	for range 40 + 1 - 8 {
		if err := l.nextRefusal(t); !errors.Is(err, ErrCrowded) {
			t.Errorf("got %v, want ErrCrowded", err)
		}
	}
}

func TestManyClientsAtOnce(t *testing.T) {
	l := listenFor(t, Options{Handshakes: 4})
	fd := newUserfaultfd(t)
	const clients = 50
	var senders sync.WaitGroup
	for range clients {
		conn := dial(t, l.Addr())
		send(t, conn, good, fd) // before the listener can find it silent
		senders.Go(func() { conn.Close() })
	}
	for range clients {
		client, err := l.Accept(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		client.Close()
	}
	senders.Wait()
}

func TestAcceptEnds(t *testing.T) {
	l := listenFor(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	dial(t, l.Addr()) // a handshake under way does not hold up Close
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if _, err := os.Lstat(l.Addr()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if len(l.refused) > 0 {
		t.Errorf("closing refused a client: %v", <-l.refused)
	}
}

func TestCloseGivesUpUntakenClients(t *testing.T) {
	l := listenFor(t, Options{})
	conn := dial(t, l.Addr())
	send(t, conn, good, newUserfaultfd(t))
	send(t, dial(t, l.Addr()), "x")
	l.nextRefusal(t) // so both have been received, or are about to be
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// Who has handed its memory over before the end is served, though nobody was
// accepting at the time.
func TestStopKeepsThoseWhoHaveCome(t *testing.T) {
	l := listenFor(t, Options{})
	for range 3 {
		send(t, dial(t, l.Addr()), good, newUserfaultfd(t))
	}
	dial(t, l.Addr()) // says nothing
	if err := l.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("unix", l.Addr()); err == nil {
		t.Error("there is still somebody to connect to")
	}
	for range 3 {
		client, err := l.Accept(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		client.Close()
	}
	if _, err := l.Accept(soon(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

// Those who still stand in the queue of a listener that is full have come in time, too,
// however long it takes until there is room for them.
func TestStopKeepsTheQueue(t *testing.T) {
	l := listenFor(t, Options{Handshakes: 2})
	for n := range 6 {
		send(t, dial(t, l.Addr()), good, newUserfaultfd(t))
		for n < 2 && l.finished() <= n {
			time.Sleep(time.Millisecond)
		}
	}
	if err := l.Stop(); err != nil {
		t.Error(err)
	}
	time.Sleep(2 * backlogTime)
	for n := range 6 {
		client, err := l.Accept(soon(t))
		if err != nil {
			t.Fatalf("client %d: %v", n, err)
		}
		client.Close()
	}
	if _, err := l.Accept(soon(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

// finished is how many handshakes wait for Accept.
func (l *Listener) finished() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.pending {
		if p.finished {
			n++
		}
	}
	return n
}

func TestListenPaths(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path string
		want       error
	}{
		{"too long", filepath.Join(dir, strings.Repeat("x", 108)), ErrBadPath},
		{"empty", "", ErrBadPath},
		{"abstract", "@faultline", ErrBadPath},
		{"a file", file, ErrNotSocket},
		{"no directory", filepath.Join(dir, "missing", "s"), os.ErrNotExist},
	} {
		l, err := Listen(test.path, Options{})
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
		if err == nil {
			l.Close()
		}
		t.Log(err)
	}
	if text, err := os.ReadFile(file); string(text) != "precious" {
		t.Errorf("the file was not left alone: %q, %v", text, err)
	}
}

func TestListenReplacesAStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	l, err := Listen(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(path, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	acceptGood(t, &testListener{Listener: l})
}

func TestOneOfManyServersGetsAStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for range 20 {
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
		if err != nil {
			t.Fatal(err)
		}
		stale.SetUnlinkOnClose(false)
		stale.Close()
		got := make(chan *Listener, 8)
		var servers sync.WaitGroup
		for range cap(got) {
			servers.Go(func() {
				l, err := Listen(path, Options{})
				if err == nil {
					got <- l
				} else if !errors.Is(err, ErrInUse) {
					t.Error(err)
				}
			})
		}
		servers.Wait()
		if len(got) != 1 {
			t.Fatalf("%d servers got the socket", len(got))
		}
		(<-got).Close()
	}
}

func TestCloseLeavesAnothersSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := Listen(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	acceptGood(t, &testListener{Listener: second})
}

// The umask is set so that a mode that came from elsewhere would show. Only the
// mode's own bits can be seen to be right from the first moment: it is the
// socket that has them when bind(2) makes the file.
func TestListenModeIsPrivate(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	l := listenFor(t, Options{})
	info, err := os.Lstat(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket has mode %v", info.Mode())
	}
}

func TestPeerByNumber(t *testing.T) {
	fd, err := openPid(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if exited(fd) {
		t.Error("this process has exited")
	}
	unix.Close(fd)
	if _, err := openPid(1 << 30); !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
}

func ExampleListener_Accept() {
	serve := func(ctx context.Context, l *Listener, imageSize uint64) error {
		for {
			client, err := l.Accept(ctx)
			if err != nil {
				return err
			}
			if err := handoff.CheckRegions(client.Regions, imageSize); err != nil {
				fmt.Println(err)
				client.Close()
				continue
			}
			// Serve it, elsewhere.
		}
	}
	_ = serve
}
