package pager

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// modelPage is the size of every page in these tests.
const modelPage = 4096

// A world is a client and its kernel, seen from both sides: what the client's
// threads do, and what a handler may do about it. The model is one, the real
// kernel with a client process is the other.
type world interface {
	// access has thread t, which is idle, load from page p, or store value there.
	access(t, p int, store bool, value uint64)
	// remove has thread t give up n pages from p on.
	remove(t, p, n int)
	// signal interrupts thread t.
	signal(t int)
	// split ends a mapping before page p.
	split(p int)
	// die ends the client.
	die()
	// outcomes are what threads have finished since the last call, in their order.
	outcomes() []outcome

	events() []Event
	install(kind ActionKind, p, n int, content []uint64) (done int, errno unix.Errno)
	wake(p int)
}

// outcome is what came of a thread's access or removal.
type outcome struct {
	thread, page int
	store        bool
	removal      bool
	bus          bool   // it got SIGBUS
	value        uint64 // that it loaded or stored
}

// model is a kernel, or what kernel-facing code may assume of one, as far as
// missing faults and removals go.
type model struct {
	base    uint64 // address of page 0
	pages   []modelPte
	vma     []int // mappings by page; negative ones are not registered
	threads []modelThread
	faults  []int // threads whose message is unread, oldest first
	removes []int // likewise for remove events
	dead    bool
	done    []outcome

	// coarse has threads run on by themselves whenever they can; otherwise each of
	// their steps is one of the schedule.
	coarse bool
}

type modelPte struct {
	present, poison bool
	value           uint64
}

type modelThread struct {
	phase       phase
	page, pages int
	zapped      int // of a removal's pages
	told        int // pages behind those in its event
	store       bool
	value       uint64
}

// phase is where a thread stands.
type phase int

const (
	thIdle     phase = iota
	thFault          // in a fault whose message is unread
	thWaiting        // in a fault whose message was read
	thWoken          // about to try again
	thRemove         // in madvise, its event unread
	thChanging       // its event was read, but installs are refused as yet
	thZapping        // about to drop the pages
)

func newModel(base uint64, vma []int, threads int, coarse bool) *model {
	return &model{base: base, pages: make([]modelPte, len(vma)), vma: vma, threads: make([]modelThread, threads), coarse: coarse}
}

func (m *model) idle(t int) bool { return m.threads[t].phase == thIdle && !m.dead }

func (m *model) access(t, p int, store bool, value uint64) {
	m.threads[t] = modelThread{phase: thWoken, page: p, store: store, value: value}
	m.step(t)
	m.settle()
}

func (m *model) remove(t, p, n int) {
	m.threads[t] = modelThread{page: p, pages: n}
	m.tell(t)
}

// tell has a thread wait until its event is read. Each mapping gets one of its own.
func (m *model) tell(t int) {
	th := &m.threads[t]
	th.phase = thRemove
	th.told = 0
	for p := th.page + th.zapped; p < th.page+th.pages && m.vma[p] == m.vma[th.page+th.zapped]; p++ {
		th.told++
	}
	m.removes = append(m.removes, t)
}

// step lets a thread do the next thing it can do by itself.
func (m *model) step(t int) (moved bool) {
	th := &m.threads[t]
	if m.dead {
		return false
	}
	switch th.phase {
	case thWoken:
		m.forget(t)
		m.try(t)
	case thChanging:
		th.phase = thZapping
	case thZapping:
		// A removal whose mapping was split meanwhile goes on with the next one, and
		// tells of that anew.
		for vma := m.vma[th.page+th.zapped]; th.zapped < th.pages; th.zapped++ {
			if m.vma[th.page+th.zapped] != vma {
				m.tell(t)
				return true
			}
			m.pages[th.page+th.zapped] = modelPte{}
		}
		th.phase = thIdle
		m.done = append(m.done, outcome{thread: t, page: th.page, value: uint64(th.pages), removal: true})
	default:
		return false
	}
	return true
}

func (m *model) settle() {
	for moved := m.coarse; moved; {
		moved = false
		for t := range m.threads {
			moved = m.step(t) || moved
		}
	}
}

// try is a thread's access.
func (m *model) try(t int) {
	th := &m.threads[t]
	pte := &m.pages[th.page]
	o := outcome{thread: t, page: th.page, store: th.store, value: th.value}
	switch {
	case pte.poison:
		o.bus, o.value = true, 0
	case !pte.present:
		th.phase = thFault
		m.faults = append(m.faults, t)
		return
	case th.store:
		pte.value = th.value
	default:
		o.value = pte.value
	}
	th.phase = thIdle
	m.done = append(m.done, o)
}

// forget takes a thread's message from the queue: it waits no more.
func (m *model) forget(t int) {
	for i, u := range m.faults {
		if u == t {
			m.faults = append(m.faults[:i], m.faults[i+1:]...)
			return
		}
	}
}

// signal makes a waiting thread fault once more, with a new message.
func (m *model) signal(t int) {
	if th := &m.threads[t]; th.phase == thWaiting && !m.dead {
		th.phase = thFault
		m.faults = append(m.faults, t)
	}
}

func (m *model) split(p int) {
	if p == 0 || m.vma[p] != m.vma[p-1] {
		return
	}
	old := m.vma[p]
	for q := p; q < len(m.vma) && m.vma[q] == old; q++ {
		m.vma[q] = old + 1000 + p
	}
}

// die takes the threads' messages along.
func (m *model) die() { m.dead, m.faults, m.removes = true, nil, nil }

func (m *model) outcomes() []outcome {
	done := m.done
	m.done = nil
	return done
}

// events hands out every fault before any removal, whatever their age.
func (m *model) events() (evs []Event) {
	for _, t := range m.faults {
		if m.threads[t].phase == thFault { // not one that was woken and still has to run
			m.threads[t].phase = thWaiting
		}
		evs = append(evs, Event{Kind: EventFault, Address: m.address(m.threads[t].page)})
	}
	for _, t := range m.removes {
		th := &m.threads[t]
		th.phase = thChanging
		evs = append(evs, Event{Kind: EventRemove, Address: m.address(th.page + th.zapped), Size: uint64(th.told) * modelPage})
	}
	m.faults, m.removes = nil, nil
	m.settle()
	return evs
}

func (m *model) address(p int) uint64 { return m.base + uint64(p)*modelPage }

// changing reports whether some thread is between telling of a removal and being
// told that it was heard; every install is refused for so long.
func (m *model) changing() bool {
	for _, th := range m.threads {
		if th.phase == thRemove || th.phase == thChanging {
			return true
		}
	}
	return false
}

func (m *model) install(kind ActionKind, p, n int, content []uint64) (done int, errno unix.Errno) {
	if m.dead {
		return 0, unix.ESRCH
	}
	if m.changing() {
		return 0, unix.EAGAIN
	}
	for q := p; q < p+n; q++ {
		if m.vma[q] != m.vma[p] || m.vma[q] < 0 {
			return 0, unix.ENOENT
		}
	}
	for done < n && m.installPage(kind, p+done, content, done) {
		done++
	}
	m.wakeRange(p, done)
	switch done {
	case n:
		return done, 0
	case 0:
		return 0, unix.EEXIST
	}
	return done, unix.EAGAIN
}

// installPage fails where there is something. A copy may replace poison; zeros and
// poison may not.
func (m *model) installPage(kind ActionKind, p int, content []uint64, i int) bool {
	pte := &m.pages[p]
	if pte.present || pte.poison && kind != ActionCopy {
		return false
	}
	switch kind {
	case ActionCopy:
		*pte = modelPte{present: true, value: content[i]}
	case ActionZero:
		*pte = modelPte{present: true}
	case ActionPoison:
		*pte = modelPte{poison: true}
	}
	return true
}

func (m *model) wake(p int) { m.wakeRange(p, 1) }

func (m *model) wakeRange(p, n int) {
	for t := range m.threads {
		th := &m.threads[t]
		if (th.phase == thFault || th.phase == thWaiting) && th.page >= p && th.page < p+n {
			th.phase = thWoken
		}
	}
	m.settle()
}

func (o outcome) String() string {
	switch {
	case o.removal:
		return fmt.Sprintf("thread %d removed %d pages from %d", o.thread, o.value, o.page)
	case o.bus:
		return fmt.Sprintf("thread %d: SIGBUS at page %d", o.thread, o.page)
	case o.store:
		return fmt.Sprintf("thread %d stored %d in page %d", o.thread, o.value, o.page)
	}
	return fmt.Sprintf("thread %d loaded %d from page %d", o.thread, o.value, o.page)
}
