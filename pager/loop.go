package pager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// demandTurn bounds how much is installed before events are looked for again.
const demandTurn = 16

// loop is the engine. Draining events, deciding and installing happen on this one
// thread, which is what keeps an install from landing behind a remove event that
// was read after it was decided (see the package documentation).
func (e *Engine) loop(ctx context.Context) error {
	busy := false
	for {
		readable, exited, err := e.wait(busy)
		if err != nil {
			return e.abandon(err)
		}
		if exited {
			return e.outcome()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		e.core.Tick(time.Since(e.start))
		if readable {
			if err := e.drain(); err != nil {
				return e.abandon(err)
			}
		}
		e.collect()
		busy = e.act()
		if e.core.gone || e.core.killed && (e.killErr != nil || e.opt.Exit < 0) {
			return e.outcome()
		}
		if e.core.Filled() && e.announceFilled() {
			return nil
		}
	}
}

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
	select {
	case <-e.filled:
	default:
		close(e.filled)
	}
	return e.leaving
}

// wait sleeps until there is something to do, or only looks if busy.
func (e *Engine) wait(busy bool) (readable, exited bool, err error) {
	var zero unix.Timespec
	timeout := &zero
	if !busy {
		e.asleep.Store(true)
		defer e.asleep.Store(false)
		if !e.pending() {
			timeout = e.timeout()
		}
	}
	fds := [3]unix.PollFd{
		{Fd: int32(e.opt.Target.Pollable()), Events: unix.POLLIN},
		{Fd: int32(e.bell), Events: unix.POLLIN},
		{Fd: int32(e.opt.Exit), Events: unix.POLLIN},
	}
	_, err = unix.Ppoll(fds[:], timeout, nil)
	if err == unix.EINTR {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("poll: %w", err)
	}
	if fds[1].Revents != 0 {
		var count [8]byte
		unix.Read(e.bell, count[:])
	}
	if fds[2].Revents != 0 {
		return false, true, nil
	}
	// A userfaultfd reports an error when it is in blocking mode. The flag lies on
	// the open file, which the client shares.
	if fds[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
		return false, false, errors.New("the userfaultfd was closed or put in blocking mode")
	}
	return fds[0].Revents&unix.POLLIN != 0, false, nil
}

// timeout is how long the core can do without a tick. While anything is deferred
// that is not for ever, since no further event may come.
func (e *Engine) timeout() *unix.Timespec {
	at, ok := e.core.Deadline()
	if !ok {
		return nil
	}
	ts := unix.NsecToTimespec(int64(max(at-time.Since(e.start), 0)))
	return &ts
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

// act carries out what the core asks for: everything that someone waits for, or
// else one piece of what nobody does. It reports whether there may be more.
func (e *Engine) act() (more bool) {
	for range demandTurn {
		a, ok := e.core.Next()
		if !ok {
			return false
		}
		if a.Kind == ActionFetch {
			e.fetch(a)
			continue
		}
		done, err := e.perform(a)
		e.core.Tick(time.Since(e.start))
		errno := errnoOf(err)
		e.core.Complete(a, done, errno)
		if a.Background || errno == unix.EAGAIN {
			return true
		}
	}
	return true
}

func (e *Engine) perform(a Action) (int64, error) {
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
	e.results, e.calls = nil, nil
	e.mu.Unlock()
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

func (e *Engine) pending() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.results)+len(e.calls) > 0 || e.ctx.Err() != nil
}
