package pager

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"faultline/internal/cpu"
)

// ErrKilled is returned by Engine.Run when the client had to be ended, because it
// could otherwise have seen wrong bytes or waited for ever.
var ErrKilled = errors.New("client ended: its memory could not be kept right")

// Options are what an engine needs. Source, Target, Regions, Pool and Kill must be
// given.
type Options struct {
	Source  Source
	Target  Target
	Regions []Region
	Pool    *Pool
	// Kill ends the client, at once and for certain.
	Kill func() error
	// Exit is a descriptor that polls readable once the client has exited, such as a
	// pidfd, or -1.
	Exit int

	// BlockSize, Slots, Prefetch, FetchAttempts and Patience are the Config's.
	BlockSize     uint64
	Slots         int
	Prefetch      bool
	FetchAttempts int
	Patience      time.Duration

	// Pin binds the engine's thread to CPU.
	Pin bool
	CPU int
	// OnError hears of content that could not be had. It must not block, and may be
	// nil.
	OnError func(error)
}

// An Engine serves one client. It is started by Run, once.
type Engine struct {
	opt      Options
	core     *Core
	resident Resident // the source, if it is one
	memory   []byte   // the slots
	slotSize uint64
	slots    [][]byte // where each slot's content is
	jobs     []fetchJob
	events   []Event
	faults   []uint64
	start    time.Time

	fetchCtx, demandCtx context.Context // of the fetches
	fetches             sync.WaitGroup

	poller *poller
	asleep atomic.Bool // the thread looks at nothing but what it polls
	mail   atomic.Bool // there is something below, or the context has ended

	mu      sync.Mutex
	results []*fetchJob
	calls   []func()
	ended   bool

	spare   []*fetchJob // the other buffer for results
	leaving bool        // return once filled
	full    bool        // filled is closed
	killErr error       // of the attempt to end the client
	filled  chan struct{}
}

// NewEngine checks the options and allocates what Run needs.
func NewEngine(o Options) (*Engine, error) {
	core, err := NewCore(Config{
		Regions: o.Regions, BlockSize: o.BlockSize, Slots: o.Slots, Prefetch: o.Prefetch,
		FetchAttempts: o.FetchAttempts, Patience: o.Patience,
	})
	if err != nil {
		return nil, err
	}
	for _, r := range o.Regions {
		if r.Offset+r.Size < r.Offset || r.Offset+r.Size > uint64(o.Source.Size()) {
			return nil, fmt.Errorf("region %#x+%#x shows content behind the end of the source, which has %d bytes", r.Address, r.Size, o.Source.Size())
		}
	}
	e := &Engine{
		opt: o, core: core, slotSize: core.slotSize(), events: make([]Event, 64), start: time.Now(),
		filled: make(chan struct{}),
	}
	e.resident, _ = o.Source.(Resident)
	n := core.cfg.Slots
	e.slots, e.jobs = make([][]byte, n), make([]fetchJob, n)
	// Mapped, not allocated: the kernel reads it while the collector runs.
	if e.memory, err = unix.Mmap(-1, 0, n*int(e.slotSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE); err != nil {
		return nil, fmt.Errorf("map %d fetch buffers of %d bytes: %w", n, e.slotSize, err)
	}
	if e.poller, err = newPoller(o.Target.Pollable(), o.Exit); err != nil {
		return nil, errors.Join(err, unix.Munmap(e.memory))
	}
	return e, nil
}

// slotSize is the size of the largest block.
func (c *Core) slotSize() uint64 {
	var n uint64
	for i := range c.regions {
		n = max(n, uint64(c.regions[i].perBlock)*c.regions[i].PageSize)
	}
	return n
}

// Run serves the client until it exits (nil), until it had to be ended
// (ErrKilled), until everything is installed after a call of Leave (nil), or until
// ctx is done (its error). In the last case the client may be alive and
// unanswered: it is the caller's to hand over or to end.
func (e *Engine) Run(ctx context.Context) error {
	errs := make(chan error, 1)
	go func() {
		// The goroutine ends without unlocking, so the thread, with whatever affinity
		// it was given, ends too.
		runtime.LockOSThread()
		errs <- e.run(ctx)
	}()
	return <-errs
}

func (e *Engine) run(ctx context.Context) error {
	fetchCtx, cancel := context.WithCancel(ctx)
	e.fetchCtx, e.demandCtx = fetchCtx, cpu.Demand(fetchCtx)
	stop := context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.notify()
	})
	err := e.pin()
	if err == nil {
		err = e.loop(ctx)
	} else {
		err = e.abandon(err)
	}
	stop()
	return errors.Join(err, e.end(cancel))
}

func (e *Engine) pin() error {
	if !e.opt.Pin {
		return nil
	}
	var set unix.CPUSet
	set.Set(e.opt.CPU)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("bind the engine to CPU %d: %w", e.opt.CPU, err)
	}
	return nil
}

// end waits for the fetches under way, then gives everything back.
func (e *Engine) end(cancel func()) error {
	cancel()
	e.fetches.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	for _, call := range e.calls {
		call()
	}
	e.calls = nil
	return errors.Join(unix.Munmap(e.memory), e.poller.close())
}

// notify has the thread look at what was left for it. The caller holds mu, without
// which the poller might be gone.
func (e *Engine) notify() {
	e.mail.Store(true)
	if !e.ended && e.asleep.Load() {
		e.poller.ring()
	}
}

// post has the engine's thread run f, some time. After the end it runs at once.
func (e *Engine) post(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		f()
		return
	}
	e.calls = append(e.calls, f)
	e.notify()
}

// Stats gives the figures as they are now. Run must have been called.
func (e *Engine) Stats() (s Stats) {
	ran := make(chan struct{})
	e.post(func() { s = e.core.Stats(); close(ran) })
	<-ran
	return s
}

// Filled is closed once no content is missing in the client any more.
func (e *Engine) Filled() <-chan struct{} { return e.filled }

// Leave has the engine install all that is missing, asked for or not, and then
// return from Run. Unregister the regions then, and the client needs no engine.
func (e *Engine) Leave() {
	e.post(func() {
		e.leaving = true
		e.core.Leave()
	})
}

// Kill has the client ended, and Run return ErrKilled.
func (e *Engine) Kill() { e.post(func() { e.core.kill() }) }
