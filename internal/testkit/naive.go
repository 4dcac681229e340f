package testkit

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"faultline/handoff"
	"faultline/uffd"
)

// Serve answers a client's faults from image until the end of the test, or until
// stop is called, which waits for that: one thread, one page at a time, nothing
// ahead. Pages that the client removed read zero from then on. image must be outside
// the Go heap and hold every region; what it holds is not looked at.
//
// It is as simple as a page server can be, so that tests of clients and of
// handshakes depend on nothing else.
func Serve(t testing.TB, c *handoff.Client, image []byte) (stop func()) {
	t.Helper()
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatalf("eventfd: %v", err)
	}
	s := &server{client: c, image: image, wake: wake, removed: map[uint64]bool{}, zeros: make([]byte, 2<<20)}
	done := make(chan error, 1)
	go func() { done <- s.run() }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		if err := <-done; err != nil {
			t.Errorf("serve client %d: %v", c.PID, err)
		}
		unix.Close(wake)
	}
	t.Cleanup(stop)
	return stop
}

type server struct {
	client  *handoff.Client
	image   []byte
	wake    int
	removed map[uint64]bool // by address of the page
	zeros   []byte
	faults  []uint64
}

func (s *server) run() error {
	fds := []unix.PollFd{
		{Fd: int32(s.client.UFFD.Int()), Events: unix.POLLIN},
		{Fd: int32(s.wake), Events: unix.POLLIN},
		{Fd: int32(s.client.PidFD), Events: unix.POLLIN},
	}
	for {
		timeout := -1
		if len(s.faults) > 0 {
			timeout = 0
		}
		if _, err := unix.Poll(fds, timeout); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if fds[1].Revents != 0 || fds[2].Revents != 0 {
			return nil
		}
		if err := s.drain(); err != nil {
			return err
		}
		if err := s.answer(); err != nil {
			return err
		}
	}
}

// drain reads all that is queued before any of it is answered: a REMOVE comes
// after the faults, however old those are.
func (s *server) drain() error {
	var messages [64]uffd.Message
	for {
		n, err := s.client.UFFD.Read(messages[:])
		if n == 0 || err != nil {
			return err
		}
		for i := range messages[:n] {
			switch m := &messages[i]; m.Kind() {
			case uffd.EventKindPagefault:
				s.faults = append(s.faults, m.Fault().Address)
			case uffd.EventKindRemove:
				for at := m.Removed().Start; at < m.Removed().End(); at += 4096 {
					s.removed[at] = true
				}
			default:
				return fmt.Errorf("unexpected event %v", m.Kind())
			}
		}
	}
}

// answer installs the pages that were asked for, and keeps those for which the
// kernel wants to be asked again after more events were read.
func (s *server) answer() error {
	var later []uint64
	for _, at := range s.faults {
		err := s.install(at)
		switch {
		case errors.Is(err, unix.EAGAIN):
			later = append(later, at)
		case errors.Is(err, unix.ESRCH): // the client is going away
		case err != nil:
			return err
		}
	}
	s.faults = later
	return nil
}

func (s *server) install(at uint64) error {
	for _, r := range s.client.Regions {
		if at < r.Address || at-r.Address >= r.Size {
			continue
		}
		at -= at % r.PageSize
		content := s.zeros[:r.PageSize]
		if !s.removed[at] {
			content = s.image[r.Offset+at-r.Address:][:r.PageSize]
		}
		_, err := s.client.UFFD.Copy(at, content, 0)
		if errors.Is(err, unix.EEXIST) {
			err = s.client.UFFD.Wake(uffd.Range{Start: at, Len: r.PageSize})
		}
		return err
	}
	return fmt.Errorf("fault at %#x, outside of all regions", at)
}
