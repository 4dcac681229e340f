// Package server serves the clients that come in at a listener, each in a session
// of its own, and ends them in good order: no client is left alive with memory that
// nobody fills.
package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"faultline/handoff"
	"faultline/pager"
	"faultline/session"
)

// A Listener delivers clients, as firecracker.Listener does.
type Listener interface {
	Accept(context.Context) (*handoff.Client, error)
	Stop() error // no new clients; Accept gives those that are there, then fails
	Close() error
}

// Options say what to serve. Source, Listener and Notify must be given.
type Options struct {
	Source   pager.Source
	Listener Listener // closed by Run
	// NoPrefetch leaves what nobody asks for alone.
	NoPrefetch bool
	// Once ends Run after the first client.
	Once bool
	// Grace is how long clients may take to be filled at the end, before they are
	// killed; 0 is no limit.
	Grace time.Duration
	// Notify hears of all that happens. It is called from many goroutines, those that
	// answer faults among them, so it must not block.
	Notify func(Event)
}

type server struct {
	o       Options
	watches sync.WaitGroup

	mu       sync.Mutex
	sessions map[*session.Session]bool // those under way, and whether they are being left
	killed   bool                      // a client had to be ended

	last int // number of the newest session
}

// Run serves clients until stop is done, or with Once until the first has gone.
// Then it accepts no more, fills those that are left and leaves them to themselves.
// Clients that are not complete after Grace, or when kill is done, are killed.
//
// The error wraps session.ErrKilled if any client had to be ended, whenever that
// was; it is the listener's if that failed.
func Run(stop, kill context.Context, o Options) error {
	s := &server{o: o, sessions: map[*session.Session]bool{}}
	first, err := s.accept(stop)
	err = errors.Join(err, s.drain(), o.Listener.Close())
	if first != nil {
		select {
		case <-first.Done():
		case <-stop.Done():
		}
	}
	s.finish(kill)
	s.watches.Wait()
	if s.killed {
		err = errors.Join(session.ErrKilled, err)
	}
	return err
}

// accept starts sessions until stop is done or the listener fails. With Once it gives
// back the first, or nil if that could not be started.
func (s *server) accept(stop context.Context) (*session.Session, error) {
	for {
		client, err := s.o.Listener.Accept(stop)
		if err != nil {
			if stop.Err() != nil {
				err = nil
			}
			return nil, err
		}
		if started := s.start(client); s.o.Once {
			return started, nil
		}
	}
}

// drain starts sessions for the clients that have come and were not accepted yet.
// Their memory is handed over; without a session they would wait for it for ever.
// Like the others they are left complete, or killed.
func (s *server) drain() error {
	err := s.o.Listener.Stop()
	for {
		client, acceptErr := s.o.Listener.Accept(context.Background())
		if acceptErr != nil { // soon, as there are no new ones
			return err
		}
		s.start(client)
	}
}

// start begins a session.
func (s *server) start(client *handoff.Client) *session.Session {
	s.last++
	e := Event{Kind: Started, Session: s.last, PID: client.PID}
	for _, r := range client.Regions {
		e.Bytes += r.Size
	}
	fetchFailed := func(err error) {
		s.o.Notify(Event{Kind: Failed, Session: e.Session, PID: e.PID, Err: err})
	}
	begin := time.Now()
	started, err := session.Start(client, session.Options{Source: s.o.Source, NoPrefetch: s.o.NoPrefetch, OnError: fetchFailed})
	if err != nil {
		s.mu.Lock()
		s.killed = true // session.Start ends clients that can't be served
		s.mu.Unlock()
		e.Kind, e.Outcome, e.Err = Ended, Killed, err
		s.o.Notify(e)
		return nil
	}
	s.mu.Lock()
	s.sessions[started] = false
	s.mu.Unlock()
	s.o.Notify(e)
	s.watches.Go(func() { s.watch(started, e, begin) })
	return started
}

// watch tells what becomes of a session.
func (s *server) watch(watched *session.Session, e Event, begin time.Time) {
	tell := func(kind Kind) {
		stats := watched.Stats()
		e.Kind, e.After, e.Stats = kind, time.Since(begin), &stats
		s.o.Notify(e)
	}
	select {
	case <-watched.Filled():
	case <-watched.Done():
	}
	select {
	case <-watched.Filled(): // may be closed just before Done
		tell(Filled)
	default:
	}
	e.Err = watched.Wait()
	e.Outcome = s.outcome(watched, e.Err)
	tell(Ended)
}

// outcome forgets a session that has ended, and says how it did.
func (s *server) outcome(ended *session.Session, err error) Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.sessions[ended]
	delete(s.sessions, ended)
	switch {
	case errors.Is(err, session.ErrKilled):
		s.killed = true
		return Killed
	case left && ended.Stats().Absent == 0:
		return Left
	}
	return Exited
}

// finish leaves all sessions that are under way.
func (s *server) finish(kill context.Context) {
	sessions := s.running()
	if len(sessions) == 0 {
		return
	}
	s.o.Notify(Event{Kind: Stopping, Sessions: len(sessions)})
	if s.o.Grace > 0 {
		var cancel context.CancelFunc
		kill, cancel = context.WithTimeout(kill, s.o.Grace)
		defer cancel()
	}
	var leaving sync.WaitGroup
	for _, left := range sessions {
		leaving.Go(func() {
			if left.Leave(kill); kill.Err() != nil {
				left.Kill() // how it ended is told by the session's watch
			}
		})
	}
	leaving.Wait()
}

// running lists the sessions that have not ended, and marks them as being left.
func (s *server) running() (sessions []*session.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for candidate := range s.sessions {
		select {
		case <-candidate.Done():
		default:
			s.sessions[candidate] = true
			sessions = append(sessions, candidate)
		}
	}
	return sessions
}
