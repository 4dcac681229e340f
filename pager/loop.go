package pager

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// demandTurn bounds how many calls are made before events are looked for again.
	demandTurn = 16
	// backgroundTurn bounds how long the engine fills what nobody waits for before it
	// looks whether somebody does. One call more may be under way.
	backgroundTurn = 100 * time.Microsecond
)

// loop is the engine. Draining events, deciding and installing happen on this one
// thread, which is what keeps an install from landing behind a remove event that
// was read after it was decided (see the package documentation).
func (e *Engine) loop(ctx context.Context) error {
	for busy := true; ; {
		ready, err := e.wait(busy)
		if err != nil {
			return e.abandon(err)
		}
		if ready&exitReady != 0 {
			return e.outcome()
		}
		e.tick()
		if ready&targetReady != 0 {
			if err := e.drain(); err != nil {
				return e.abandon(err)
			}
		}
		if e.mail.Load() {
			if err := ctx.Err(); err != nil {
				return err
			}
			e.collect()
		}
		busy = e.act()
		if e.core.gone || e.core.killed && (e.killErr != nil || e.opt.Exit < 0) {
			return e.outcome()
		}
		if !e.core.killed && e.core.Filled() && e.announceFilled() {
			return nil
		}
	}
}

func (e *Engine) tick() { e.core.Tick(time.Since(e.start)) }

// outcome is what Run returns for a client that is gone.
func (e *Engine) outcome() error {
	if e.core.killed {
		return errors.Join(ErrKilled, e.killErr)
	}
	return nil
}

// abandon ends the client of an engine that can't go on.
func (e *Engine) abandon(err error) error {
	return errors.Join(ErrKilled, err, e.opt.Kill())
}

// announceFilled tells whoever waits, and reports whether the engine was asked to
// leave now.
func (e *Engine) announceFilled() bool {
	if !e.full {
		e.full = true
		close(e.filled)
	}
	return e.leaving
}

// wait sleeps until there is something to do, or only looks if busy.
func (e *Engine) wait(busy bool) (ready int32, err error) {
	if busy {
		return e.poller.wait(0)
	}
	e.asleep.Store(true)
	defer e.asleep.Store(false)
	if e.mail.Load() { // it came before the bell would have been rung for it
		return e.poller.wait(0)
	}
	return e.poller.wait(e.timeout())
}

// timeout is how long the core can do without a tick. While anything is deferred
// that is not for ever, since no further event may come.
func (e *Engine) timeout() time.Duration {
	at, ok := e.core.Deadline()
	if !ok {
		return forever
	}
	return max(at-time.Since(e.start), 0)
}

// drain reads all that is queued before any of it is acted upon: the kernel hands
// out faults before the remove events that make them a matter of zeros.
func (e *Engine) drain() error {
	e.faults = e.faults[:0]
	// A thread that faults in the kernel with a signal pending repeats its message as
	// fast as it is read, so there is a bound. Should a remove event lie behind it,
	// the kernel refuses every install until that is read.
	for range 64 {
		n, err := e.opt.Target.Events(e.events)
		if err != nil {
			return err
		}
		for _, ev := range e.events[:n] {
			switch ev.Kind {
			case EventFault:
				e.faults = append(e.faults, ev.Address)
			case EventRemove:
				e.core.Remove(ev.Address, ev.Size)
			}
		}
		if n < len(e.events) {
			break
		}
	}
	for _, addr := range e.faults {
		e.core.Fault(addr)
	}
	return nil
}

// act carries out what the core asks for: what somebody waits for first, then, for
// a while, what nobody does. It reports whether there may be more.
func (e *Engine) act() (more bool) {
	began := e.core.now
	var a Action
	for calls := 0; e.core.Next(&a); {
		if a.Kind == ActionFetch {
			e.fetch(&a)
			continue
		}
		done, err := e.perform(&a)
		e.tick()
		errno := errnoOf(err)
		e.core.Complete(a, done, errno)
		if calls++; !a.Background && calls == demandTurn || a.Background && e.core.now-began > backgroundTurn || errno == unix.EAGAIN {
			return true
		}
	}
	return false
}

func (e *Engine) perform(a *Action) (int64, error) {
	switch a.Kind {
	case ActionCopy:
		return e.opt.Target.Copy(a.Span, e.slots[a.Slot][a.SlotOffset:][:a.Span.Size])
	case ActionZero:
		return e.opt.Target.Zero(a.Span)
	case ActionPoison:
		return e.opt.Target.Poison(a.Span)
	case ActionWake:
		return 0, e.opt.Target.Wake(a.Span)
	default:
		e.killErr = e.opt.Kill()
		return 0, e.killErr
	}
}

// errnoOf is the errno in an error. One without is EIO, which no rule forgives.
func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EIO
}

// collect takes in what others have left for this thread.
func (e *Engine) collect() {
	e.mu.Lock()
	results, calls := e.results, e.calls
	e.results, e.calls = e.spare[:0], nil
	e.mail.Store(false)
	e.mu.Unlock()
	e.spare = results
	for _, j := range results {
		if j.err != nil && e.opt.OnError != nil {
			e.opt.OnError(j.err)
		}
		e.core.Fetched(j.action, j.zero, j.bad)
	}
	for _, call := range calls {
		call()
	}
}
