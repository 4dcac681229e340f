package pager

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// script is a target that reports what it was told to, a piece a call, and records
// what is asked of it.
type script struct {
	mu     sync.Mutex
	fd     int // eventfd
	events []Event
	calls  []ActionKind
	unread []int // events that were unread at each install
	refuse func(kind ActionKind, span Span) error
}

func newScript(t *testing.T) *script {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &script{fd: fd}
}

func (s *script) report(events ...Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, events...)
	unix.Write(s.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (s *script) Pollable() int { return s.fd }

func (s *script) Events(buf []Event) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := copy(buf, s.events)
	s.events = s.events[n:]
	if len(s.events) == 0 {
		unix.Read(s.fd, make([]byte, 8))
	}
	return n, nil
}

func (s *script) install(kind ActionKind, span Span) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, kind)
	s.unread = append(s.unread, len(s.events))
	if s.refuse != nil {
		if err := s.refuse(kind, span); err != nil {
			return 0, err
		}
	}
	return int64(span.Size), nil
}

func (s *script) Copy(span Span, _ []byte) (int64, error) { return s.install(ActionCopy, span) }
func (s *script) Zero(span Span) (int64, error)           { return s.install(ActionZero, span) }
func (s *script) Poison(span Span) (int64, error)         { return s.install(ActionPoison, span) }

func (s *script) Wake(span Span) error {
	_, err := s.install(ActionWake, span)
	return err
}

func (s *script) recorded() []ActionKind {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// blank is a source of zeros that says nothing of it, and waits where it is told to.
type blank struct {
	size int64
	gate chan struct{} // nil: no waiting
}

func (b blank) Size() int64 { return b.size }
func (b blank) Extent(ctx context.Context, off int64) (int64, bool, error) {
	if b.gate != nil {
		select {
		case <-b.gate:
		case <-ctx.Done():
			return 0, false, ctx.Err()
		}
	}
	return b.size - off, false, nil
}
func (b blank) ReadAt(context.Context, []byte, int64) error { return nil }

// atHand is blank with its content in memory, so that faults are answered at once.
type atHand struct{ blank }

func (a atHand) Bytes(off int64, n int) []byte { return make([]byte, n) }

type running struct {
	*Engine
	*script
	killed chan struct{}
	ended  chan error
	cancel context.CancelFunc
}

// runEngine serves the scripted target with 256 pages.
func runEngine(t *testing.T, src Source, o Options) *running {
	t.Helper()
	r := &running{script: newScript(t), killed: make(chan struct{}), ended: make(chan error, 1)}
	o.Source, o.Target, o.Exit = src, r.script, -1
	o.Kill = sync.OnceValue(func() error { close(r.killed); return nil })
	o.Regions = []Region{{Address: testBase, Size: uint64(src.Size()), PageSize: modelPage}}
	o.Pool = NewPool(2)
	e, err := NewEngine(o)
	if err != nil {
		t.Fatal(err)
	}
	r.Engine = e
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.ended <- e.Run(ctx); close(r.ended) }()
	t.Cleanup(func() { cancel(); <-r.ended; o.Pool.Close() })
	return r
}

// until waits for a condition on the figures.
func (r *running) until(t *testing.T, what string, ok func(Stats) bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(r.Stats()); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after 10 s; figures %+v, calls %v", what, r.Stats(), r.recorded())
		}
	}
}

func fault(page uint64) Event { return Event{Kind: EventFault, Address: testBase + page*modelPage} }
func removal(page, n uint64) Event {
	return Event{Kind: EventRemove, Address: testBase + page*modelPage, Size: n * modelPage}
}

// Faults come out of the kernel before the removals that make them a matter of
// zeros. All must be read before any is answered.
func TestDrainThenAct(t *testing.T) {
	var events []Event
	for p := range uint64(200) { // several calls' worth
		events = append(events, fault(p))
	}
	events = append(events, removal(0, 200))
	r := runEngine(t, atHand{blank{size: 256 * modelPage}}, Options{})
	r.report(events...)
	r.until(t, "every fault is answered", func(s Stats) bool { return s.PagesZeroed >= 200 })
	for i, n := range r.unread {
		if n > 0 {
			t.Fatalf("call %d (%v) was made with %d events unread", i, r.script.calls[i], n)
		}
	}
	if slices.Contains(r.recorded(), ActionCopy) {
		t.Error("content was installed where the client had given it up")
	}
}

// Whoever removes memory waits until that is read, so reading goes on whatever
// the source does.
func TestRemovalsAreReadWhileTheSourceHangs(t *testing.T) {
	gate := make(chan struct{})
	r := runEngine(t, blank{256 * modelPage, gate}, Options{})
	r.report(fault(3))
	r.until(t, "the fault is read", func(s Stats) bool { return s.Faults == 1 })
	r.report(removal(3, 1))
	r.until(t, "the removal is answered", func(s Stats) bool { return s.PagesZeroed == 1 })
	close(gate)
}

// No further event may come while something is deferred.
func TestRefusalsAreRetriedWithoutAnEvent(t *testing.T) {
	r := runEngine(t, blank{size: 256 * modelPage}, Options{})
	left := 20
	r.script.mu.Lock()
	r.refuse = func(ActionKind, Span) error {
		if left--; left >= 0 {
			return unix.EAGAIN
		}
		return nil
	}
	r.script.mu.Unlock()
	r.report(fault(7))
	// Asking for figures would wake the engine.
	for deadline := time.Now().Add(10 * time.Second); len(r.recorded()) <= 20; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s: %v", r.recorded())
		}
	}
	if s := r.Stats(); s.Busy != 20 {
		t.Errorf("%d refusals, not 20", s.Busy)
	}
}

func TestCancelledEngineLeavesTheClientToItsCaller(t *testing.T) {
	r := runEngine(t, blank{256 * modelPage, make(chan struct{})}, Options{Prefetch: true})
	r.report(fault(7))
	r.until(t, "the fault is read", func(s Stats) bool { return s.Faults == 1 })
	r.cancel()
	if err := <-r.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	select {
	case <-r.killed:
		t.Error("the client was ended")
	default:
	}
	r.Stats() // still answers
}

func TestStrayFaultEndsTheClient(t *testing.T) {
	r := runEngine(t, blank{size: 256 * modelPage}, Options{})
	r.report(fault(10_000))
	if err := <-r.ended; !errors.Is(err, ErrKilled) {
		t.Errorf("ended with %v", err)
	}
	<-r.killed
}

func TestLeaveReturnsOnceFilled(t *testing.T) {
	r := runEngine(t, blank{size: 1000 * modelPage}, Options{})
	r.Leave()
	if err := <-r.ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	<-r.Filled()
	if s := r.Stats(); s.Absent != 0 || s.PagesCopied != 1000 {
		t.Errorf("figures: %+v", s)
	}
}

// A condemned client is never left to itself, though it has everything.
func TestKillBeatsLeave(t *testing.T) {
	r := runEngine(t, blank{size: 256 * modelPage}, Options{Prefetch: true})
	<-r.Filled()
	r.Engine.Kill()
	r.Leave()
	if err := <-r.ended; !errors.Is(err, ErrKilled) {
		t.Errorf("ended with %v", err)
	}
}

func TestFetchSortsPages(t *testing.T) {
	src := &patchy{extents: []extentOf{{4096, true, nil}, {8192, false, nil}, {4096, false, errLost}, {12288, true, nil}}}
	buf := slices.Repeat([]byte{0xee}, 8*4096)
	zero, bad, err := fetch(t.Context(), src, Span{Size: 7 * 4096, PageSize: 4096}, buf)
	if zero != 0b1110001 || bad != 0b0001000 || !errors.Is(err, errLost) {
		t.Errorf("zero %07b, bad %07b, %v", zero, bad, err)
	}
	// Of a page that is partly zero all is needed, and it fails as a whole.
	zero, bad, _ = fetch(t.Context(), src, Span{Size: 4 * 8192, PageSize: 8192}, buf)
	if zero != 0b1100 || bad != 0b0010 {
		t.Errorf("huge: zero %04b, bad %04b", zero, bad)
	}
	if buf[0] != 0 {
		t.Error("the zero part of a huge page is not zero")
	}
}

var errLost = errors.New("lost")

type extentOf struct {
	n    int64
	zero bool
	err  error
}

// patchy is a source of the given extents.
type patchy struct{ extents []extentOf }

func (p *patchy) at(off int64) (extentOf, int64) {
	for _, e := range p.extents {
		if off < e.n {
			return e, e.n - off
		}
		off -= e.n
	}
	return extentOf{1 << 40, true, nil}, 1 << 40
}

func (p *patchy) Size() int64 { return 1 << 40 }
func (p *patchy) Extent(_ context.Context, off int64) (int64, bool, error) {
	e, n := p.at(off)
	return n, e.zero, nil
}
func (p *patchy) ReadAt(_ context.Context, buf []byte, off int64) error {
	for len(buf) > 0 {
		e, n := p.at(off)
		if e.err != nil {
			return e.err
		}
		n = min(n, int64(len(buf)))
		buf, off = buf[n:], off+n
	}
	return nil
}

// What somebody waits for is served however much there is that nobody does.
func TestPoolKeepsWorkersForDemand(t *testing.T) {
	p := NewPool(2)
	gate, started := make(chan struct{}), make(chan struct{}, 10)
	for range 10 {
		p.submit(jobFunc(func() { started <- struct{}{}; <-gate }), true)
	}
	<-started
	done := make(chan struct{})
	p.submit(jobFunc(func() { close(done) }), false)
	<-done
	close(gate)
	p.Close()
	if n := len(started); n != 9 {
		t.Errorf("%d of the other 9 jobs ran", n)
	}
}

type jobFunc func()

func (f jobFunc) run() { f() }
