package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signals are the user's requests to stop.
type signals struct {
	first context.Context // ends with the first; its cause is an *interruption

	mu     sync.Mutex
	second func() // called at the second
}

// An interruption is a signal that ended a command.
type interruption struct{ signal syscall.Signal }

func (i *interruption) Error() string { return "stopped by signal " + i.signal.String() }

// catchSignals asks for the signals. Unless a command has other plans, the second
// ends the program there and then: what it was writing is not visible to anyone, and
// is swept up by the next that writes to the store.
func catchSignals() *signals {
	first, cancel := context.WithCancelCause(context.Background())
	s := &signals{first: first, second: func() { os.Exit(exitInterrupted) }}
	caught := make(chan os.Signal, 2)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		number, _ := (<-caught).(syscall.Signal)
		cancel(&interruption{number})
		<-caught
		s.mu.Lock()
		defer s.mu.Unlock()
		s.second()
	}()
	return s
}

// atSecond has f called at the second signal.
func (s *signals) atSecond(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.second = f
}
