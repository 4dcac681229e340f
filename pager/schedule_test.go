package pager

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A step is one move of somebody in a schedule. Its numbers choose among what is
// possible at the time, so that any sequence of steps is a schedule and hardly any
// step is idle.
type step struct {
	Op   op
	A, B int
	C    int
}

type op string

// The moves. Those in capitals are the handler's.
const (
	opLoad   op = "load"   // of a thread; one that is busy goes on instead, where it can
	opStore  op = "store"  // likewise
	opRemove op = "remove" // likewise
	opSignal op = "signal"
	opSplit  op = "split"
	opDie    op = "die"

	opReader  op = "READER"  // reads all events, or else tells the core of what it read
	opHand    op = "HAND"    // takes an action, or carries it out, or tells what came of it
	opFetched op = "FETCHED" // a fetch comes back
	opTime    op = "TIME"
)

// The client of these tests: two regions with a gap, at odd places in the source,
// blocks of four pages, and some pages that are zero in the source.
const (
	firstPages, gapPages, secondPages = 10, 3, 6
	clientPages                       = firstPages + gapPages + secondPages
	clientThreads                     = 3
	executors                         = 2
)

func clientRegions(base uint64) []Region {
	return []Region{
		{Address: base, Size: firstPages * modelPage, Offset: 3 * modelPage, PageSize: modelPage},
		{Address: base + (firstPages+gapPages)*modelPage, Size: secondPages * modelPage, Offset: 20 * modelPage, PageSize: modelPage},
	}
}

func clientVMAs() []int {
	vma := make([]int, clientPages)
	for p := range vma {
		switch {
		case p < firstPages:
			vma[p] = 1
		case p < firstPages+gapPages:
			vma[p] = -1
		default:
			vma[p] = 2
		}
	}
	return vma
}

// imageValue is what the source has for a page of the client, by the source's page.
func imageValue(sourcePage uint64) uint64 {
	if sourcePage%3 == 1 {
		return 0
	}
	return 1000 + sourcePage
}

// A trial runs the core under a schedule against a world and holds what clients
// see against the promise.
type trial struct {
	base  uint64
	core  *Core
	world world
	model *model // the world, or what stands beside it

	now     time.Duration
	buffer  []Event // read and not applied
	reading bool    // the reader is between read and apply, and holds the lock
	hands   [executors]hand
	fetches []Action
	stores  uint64

	oracle  []uint64 // what each page holds, as far as it is certain
	leaving []int    // removals of it that are under way
	failed  []bool   // its content could not be had at least once
	fault   error
}

// hand is one who carries out actions.
type hand struct {
	state  handState
	action Action
	done   int
	errno  unix.Errno
}

type handState int

const (
	empty handState = iota
	decided
	issued
)

func newTrial(base uint64, w world, m *model, prefetch bool) *trial {
	core, err := NewCore(Config{Regions: clientRegions(base), BlockSize: 4 * modelPage, Slots: 3, Prefetch: prefetch, FetchAttempts: 2})
	if err != nil {
		panic(err)
	}
	x := &trial{base: base, core: core, world: w, model: m,
		oracle: make([]uint64, clientPages), leaving: make([]int, clientPages), failed: make([]bool, clientPages)}
	for p := range x.oracle {
		if s, ok := x.sourcePage(p); ok {
			x.oracle[p] = imageValue(s)
		}
	}
	return x
}

// sourcePage is the page of the source that a page of the client shows.
func (x *trial) sourcePage(p int) (uint64, bool) {
	ref, ok := x.core.locate(x.address(p))
	if !ok {
		return 0, false
	}
	r := x.core.regions[ref.region]
	return (r.Offset + uint64(ref.page)*r.PageSize) / modelPage, true
}

func (x *trial) address(p int) uint64      { return x.base + uint64(p)*modelPage }
func (x *trial) pageOf(address uint64) int { return int((address - x.base) / modelPage) }

// registered chooses a page that is in a region.
func registered(n int) int {
	n %= firstPages + secondPages
	if n >= firstPages {
		n += gapPages
	}
	return n
}

// run carries out one step, as far as it is possible, and checks.
func (x *trial) run(s step) error {
	switch s.Op {
	case opLoad, opStore, opRemove, opSignal, opSplit, opDie:
		x.client(s)
	default:
		x.handler(s)
	}
	x.observe()
	if x.fault == nil {
		x.fault = x.invariants()
	}
	return x.fault
}

func (x *trial) client(s step) {
	t, p := s.A%clientThreads, registered(s.B)
	switch s.Op {
	case opSplit:
		x.world.split(p)
		return
	case opDie:
		x.world.die()
		return
	case opSignal:
		x.world.signal(t)
		return
	}
	if !x.model.idle(t) {
		x.model.step(t)
		return
	}
	if x.model.coarse && x.races(p, s.Op == opStore) {
		return
	}
	switch s.Op {
	case opLoad:
		x.world.access(t, p, false, 0)
	case opStore:
		x.stores++
		x.world.access(t, p, true, 1_000_000+x.stores)
	case opRemove:
		n := 1
		for n < 1+s.C%5 && p+n < clientPages && x.model.vma[p+n] >= 0 && !x.crosses(p, n) {
			n++
		}
		for q := p; q < p+n; q++ {
			x.leaving[q]++
		}
		x.world.remove(t, p, n)
	}
}

// races reports whether another thread waits for the page and one of the two stores.
// They would be woken together, and which one is first is anybody's guess.
func (x *trial) races(p int, store bool) bool {
	return slices.ContainsFunc(x.model.threads, func(th modelThread) bool {
		return (th.phase == thFault || th.phase == thWaiting) && th.page == p && (store || th.store)
	})
}

// crosses keeps a removal inside one mapping: the kernel makes one event of each.
func (x *trial) crosses(p, n int) bool { return x.model.vma[p+n] != x.model.vma[p] }

func (x *trial) handler(s step) {
	switch s.Op {
	case opReader:
		x.reader()
	case opHand:
		x.hand(&x.hands[s.A%executors], s.C)
	case opFetched:
		x.fetched(s)
	case opTime:
		x.now += time.Duration(s.A%7) * time.Duration(s.A%7) * 100 * time.Microsecond
		x.core.Tick(x.now)
	}
}

// reader reads, under the exclusive lock, or gives up the lock once it has told
// the core.
func (x *trial) reader() {
	switch {
	case x.reading:
		x.apply()
	case !x.installing():
		x.buffer, x.reading = x.world.events(), true
	}
}

func (x *trial) hand(h *hand, chance int) {
	switch h.state {
	case empty:
		if !x.reading {
			x.next(h)
		}
	case decided:
		h.done, h.errno = x.issue(h.action, chance)
		h.state = issued
	case issued:
		h.state = empty
		x.core.Complete(h.action, int64(h.done)*modelPage, h.errno)
	}
}

// installing reports whether somebody is between deciding and doing, under the
// shared lock.
func (x *trial) installing() bool {
	return slices.ContainsFunc(x.hands[:], func(h hand) bool { return h.state == decided })
}

// apply tells the core what was read, layout first.
func (x *trial) apply() {
	for _, e := range x.buffer {
		if e.Kind == EventRemove {
			x.core.Remove(e.Address, e.Size)
		}
	}
	for _, e := range x.buffer {
		if e.Kind == EventFault {
			x.core.Fault(e.Address)
		}
	}
	x.buffer, x.reading = nil, false
}

func (x *trial) next(h *hand) {
	var a Action
	if !x.core.Next(&a) {
		return
	}
	switch a.Kind {
	case ActionFetch:
		x.fetches = append(x.fetches, a)
	case ActionWake:
		x.world.wake(x.pageOf(a.Span.Address))
		x.core.Complete(a, 0, 0)
	case ActionKill:
		x.fault = fmt.Errorf("the client was condemned")
	default:
		*h = hand{state: decided, action: a}
	}
}

// issue carries out an action; chance may make the kernel fail half-way.
func (x *trial) issue(a Action, chance int) (int, unix.Errno) {
	p, n := x.pageOf(a.Span.Address), a.Span.Pages()
	content := make([]uint64, n)
	for i := range content {
		content[i] = imageValue(a.Span.Offset/modelPage + uint64(i))
	}
	part, injected := n, unix.Errno(0)
	switch chance % 8 {
	case 0:
		part, injected = chance/8%n, unix.EAGAIN
	case 1:
		part, injected = chance/8%n, unix.ENOMEM
	}
	if part == 0 {
		return 0, injected
	}
	done, errno := x.world.install(a.Kind, p, part, content[:part])
	if errno == 0 {
		errno = injected
	}
	return done, errno
}

// fetched ends one of the fetches under way, well or badly.
func (x *trial) fetched(s step) {
	if len(x.fetches) == 0 {
		return
	}
	i := s.A % len(x.fetches)
	a := x.fetches[i]
	x.fetches = slices.Delete(x.fetches, i, i+1)
	var zero, bad uint64
	if s.B%4 == 0 {
		bad = uint64(s.C) & (1<<a.Span.Pages() - 1)
	}
	for i := range a.Span.Pages() {
		if imageValue(a.Span.Offset/modelPage+uint64(i)) == 0 && bad>>i&1 == 0 {
			zero |= 1 << i
		}
		if bad>>i&1 != 0 {
			x.failed[x.pageOf(a.Span.Address)+i] = true
		}
	}
	x.core.Fetched(a, zero, bad)
}

// observe holds what threads have seen against the promise.
func (x *trial) observe() {
	for _, o := range x.world.outcomes() {
		switch {
		case o.removal:
			for p := o.page; p < o.page+int(o.value); p++ {
				x.oracle[p] = 0
				x.leaving[p]--
			}
		case o.bus:
			if !x.failed[o.page] {
				x.fault = fmt.Errorf("%v, whose content could always be had", o)
			}
		case o.store:
			x.oracle[o.page] = o.value
		case o.value != x.oracle[o.page] && !(o.value == 0 && x.leaving[o.page] > 0):
			x.fault = fmt.Errorf("%v, which holds %d (removals under way: %d)", o, x.oracle[o.page], x.leaving[o.page])
		}
	}
}

// invariants are what must hold inside the core between any two steps.
func (x *trial) invariants() error {
	c := x.core
	if c.Ended() {
		return nil
	}
	absentPages := 0
	for r := range c.regions {
		for p := range c.regions[r].pages {
			ref := pageRef{int32(r), uint32(p)}
			state := c.state(ref)
			if state.is(absent) {
				absentPages++
			}
			if state.has(wanted) && !c.pending(ref) {
				return fmt.Errorf("page %d of region %d (%04b) is waited for and nothing is going to answer it", p, r, state)
			}
		}
	}
	if absentPages != c.absent {
		return fmt.Errorf("%d pages are absent, the core counts %d", absentPages, c.absent)
	}
	held := 0
	for i := range c.blocks {
		if c.blocks[i].slot >= 0 && c.regions[c.blocks[i].region].active[c.blocks[i].number] == int32(i) {
			held++
		}
	}
	if held+len(c.slots) != c.cfg.Slots {
		return fmt.Errorf("%d slots are held and %d free, of %d", held, len(c.slots), c.cfg.Slots)
	}
	return nil
}

// pending reports whether something is under way that will answer a page.
func (c *Core) pending(ref pageRef) bool {
	p := c.state(ref)
	if p.has(claimed) {
		return true
	}
	for i := range c.pages.n {
		if c.pages.ring[(c.pages.head+i)&(len(c.pages.ring)-1)].ref == ref {
			return true
		}
	}
	if !p.is(absent) {
		return false
	}
	r := &c.regions[ref.region]
	return r.active[r.blockOf(ref.page)] >= 0
}

// finish lets everyone run on undisturbed until nobody has anything to do, and
// checks that no thread is left waiting.
func (x *trial) finish() error {
	for range 10_000 {
		before := x.progress()
		for t := range clientThreads {
			x.model.step(t)
		}
		for i := range executors {
			x.run(step{Op: opHand, A: i, C: 7})
		}
		if !x.reading {
			x.run(step{Op: opReader})
		}
		x.run(step{Op: opReader})
		x.run(step{Op: opFetched, B: 1})
		if x.fault != nil {
			return x.fault
		}
		if x.progress() == before {
			if at, ok := x.core.Deadline(); ok {
				x.now = max(x.now, at)
				x.core.Tick(x.now)
				continue
			}
			return x.stuck()
		}
	}
	return fmt.Errorf("no end after 10,000 rounds: %s", x.progress())
}

// progress is a summary that stays the same only when nothing happens any more.
func (x *trial) progress() string {
	return fmt.Sprint(x.core.stats, x.reading, x.model.threads, x.hands, len(x.fetches), len(x.buffer), x.core.inFlight, x.core.wakes.n, x.core.pages.n)
}

func (x *trial) stuck() error {
	if x.core.Ended() || x.model.dead {
		return nil
	}
	for t, th := range x.model.threads {
		if th.phase != thIdle {
			return fmt.Errorf("thread %d is left in phase %d at page %d", t, th.phase, th.page)
		}
	}
	return nil
}

func byThread(a, b outcome) int { return cmp.Compare(a.thread, b.thread) }
