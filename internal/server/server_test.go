package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"faultline/handoff"
	"faultline/handoff/firecracker"
	"faultline/handoff/handofftest"
	"faultline/internal/snapshot"
	"faultline/session"
)

func TestMain(m *testing.M) {
	handofftest.Main()
	os.Exit(m.Run()) // sessions share a pool, which stays
}

const size = 1 << 20

// A file is a source, or one that has lost its content.
type file struct {
	*os.File
	lost bool
}

func (f file) Size() int64 { return size }

func (f file) Extent(_ context.Context, off int64) (int64, bool, error) {
	return size - off, false, nil
}

func (f file) ReadAt(_ context.Context, p []byte, off int64) error {
	if f.lost {
		return errors.New("the content is lost")
	}
	_, err := f.File.ReadAt(p, off)
	return err
}

// A late listener does not get to its clients before it is told to stop.
type late struct{ *firecracker.Listener }

func (l late) Accept(ctx context.Context) (*handoff.Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return l.Listener.Accept(ctx)
}

// runLate runs a server that is told to stop when three clients have handed their memory
// over and none has been accepted. It gives the outcomes.
func runLate(t *testing.T, lost bool, grace time.Duration) (clients []*handofftest.Client, outcomes []Outcome, err error) {
	t.Helper()
	memory := filepath.Join(t.TempDir(), "memory")
	if err := snapshot.WriteFile(memory, size, 1); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(memory)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := firecracker.Listen(filepath.Join(t.TempDir(), "socket"), firecracker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c, err := handofftest.Start(t.Context(), handofftest.Config{
			Socket: l.Addr(), Reference: memory, Regions: []handofftest.Region{{Size: size}},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Kill(); c.Wait() })
		clients = append(clients, c)
	}
	stop, cancel := context.WithCancel(t.Context())
	cancel()
	var mu sync.Mutex
	err = Run(stop, t.Context(), Options{
		Source: file{f, lost}, Listener: late{l}, NoPrefetch: true, Grace: grace,
		Notify: func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == Ended {
				outcomes = append(outcomes, e.Outcome)
			}
		},
	})
	if len(outcomes) != 3 {
		t.Fatalf("of three clients ended: %v, %v", outcomes, err)
	}
	return clients, outcomes, err
}

// Who has handed its memory over by the end is left complete, like those being served.
func TestClientsNotYetAcceptedAreLeftComplete(t *testing.T) {
	clients, outcomes, err := runLate(t, false, time.Minute)
	if err != nil {
		t.Error(err)
	}
	for i, c := range clients {
		if outcomes[i] != Left {
			t.Errorf("a client was %s", outcomes[i])
		}
		r, err := c.Check()
		if err == nil {
			err = r.Err()
		}
		if err = errors.Join(err, c.Exit()); err != nil {
			t.Error(err)
		}
	}
}

// Where that can't be done they are killed: none waits for memory that never comes.
func TestClientsNotYetAcceptedAreKilledIfTheyMustBe(t *testing.T) {
	clients, outcomes, err := runLate(t, true, 300*time.Millisecond)
	if !errors.Is(err, session.ErrKilled) {
		t.Errorf("got %v, want ErrKilled", err)
	}
	for i, c := range clients {
		if outcomes[i] != Killed {
			t.Errorf("a client was %s", outcomes[i])
		}
		<-c.Done()
	}
}
