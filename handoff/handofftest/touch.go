package handofftest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// sink keeps loads from being optimized away.
var sink atomic.Uint64

// touch runs the threads that a TouchSpec asks for and sums up what they saw.
func (m *memory) touch(spec TouchSpec) (*TouchResult, error) {
	pages, err := m.choose(spec)
	if err != nil {
		return nil, err
	}
	threads := max(1, spec.Threads)
	if threads > MaxThreads {
		return nil, fmt.Errorf("%d threads: at most %d can touch at once", threads, MaxThreads)
	}
	run := &touchRun{memory: m, spec: spec, pages: pages, begin: make(chan struct{})}
	var ready sync.WaitGroup
	for range threads {
		t, err := run.newToucher(2 * len(pages) / (threads + 1))
		if err != nil {
			run.close()
			return nil, err
		}
		run.touchers = append(run.touchers, t)
		ready.Add(1)
		run.wait.Go(func() { t.thread(&ready) })
	}
	ready.Wait()
	run.start = time.Now()
	close(run.begin)
	if spec.Storm {
		defer run.storm()()
	}
	run.wait.Wait()
	return run.result()
}

// choose lists the pages to touch in their order.
func (m *memory) choose(spec TouchSpec) ([]uint64, error) {
	pages := slices.Clone(spec.Pages)
	if err := m.checkPages(pages); err != nil {
		return nil, err
	}
	if spec.Pages == nil {
		for n := range m.pages {
			if !m.state[n].touched.Load() {
				pages = append(pages, n)
			}
		}
	}
	if spec.Random {
		r := rand.New(rand.NewPCG(spec.Seed, 0))
		r.Shuffle(len(pages), func(i, j int) { pages[i], pages[j] = pages[j], pages[i] })
	}
	if spec.Fraction > 0 {
		pages = pages[:min(len(pages), int(spec.Fraction*float64(m.pages)))]
	}
	return pages, nil
}

// A touchRun is one Touch command under way.
type touchRun struct {
	memory   *memory
	spec     TouchSpec
	pages    []uint64
	next     atomic.Uint64 // index into pages of the next to be touched
	begin    chan struct{}
	start    time.Time
	touchers []*toucher
	wait     sync.WaitGroup
}

// A toucher is one of its threads.
type toucher struct {
	run      *touchRun
	pipe     *pipe
	tid      atomic.Int64 // 0 once it is done
	samples  []int64      // nanoseconds
	first    time.Duration
	poisoned []uint64
	err      error
}

// newToucher makes room for as many samples as a thread will likely take.
func (run *touchRun) newToucher(samples int) (*toucher, error) {
	t := &toucher{run: run, samples: make([]int64, samples)}
	clear(t.samples) // so that measuring does not fault in this slice
	t.samples = t.samples[:0]
	if run.spec.Via != ViaPipe {
		return t, nil
	}
	var err error
	t.pipe, err = newPipe()
	return t, err
}

// thread touches pages until there are none left.
func (t *toucher) thread(ready *sync.WaitGroup) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	debug.SetPanicOnFault(true)
	t.tid.Store(int64(unix.Gettid()))
	defer t.tid.Store(0)
	ready.Done()
	<-t.run.begin
	for t.some() {
	}
}

// some touches pages until there are none left or one of them is poisoned, which
// is when it wants to be called again.
func (t *toucher) some() (again bool) {
	run := t.run
	var n uint64
	var begin time.Duration
	defer func() {
		if r := recover(); r != nil {
			again = isFault(r)
			t.done(begin)
			t.poisoned = append(t.poisoned, n)
		}
	}()
	for t.err == nil {
		i := run.next.Add(1) - 1
		if i >= uint64(len(run.pages)) {
			return false
		}
		n = run.pages[i]
		page, _, _ := run.memory.page(n)
		run.memory.state[n].touched.Store(true)
		begin = time.Since(run.start)
		err := t.access(page, n)
		t.done(begin)
		if errors.Is(err, unix.EFAULT) {
			t.poisoned = append(t.poisoned, n)
		} else {
			t.err = err
		}
	}
	return false
}

// done records an access that took from begin until now.
func (t *toucher) done(begin time.Duration) {
	now := time.Since(t.run.start)
	if len(t.samples) == 0 {
		t.first = now
	}
	t.samples = append(t.samples, int64(now-begin))
}

// access is the one load or store.
func (t *toucher) access(page []byte, n uint64) error {
	if t.run.spec.Write {
		return t.store(page, n)
	}
	switch t.run.spec.Via {
	case ViaCPU:
		sink.Store(uint64(page[0]))
		return nil
	case ViaPipe:
		return t.pipe.load(page)
	case ViaProcess:
		return processLoad(page)
	}
	return fmt.Errorf("unknown way to access a page: %q", t.run.spec.Via)
}

func (t *toucher) store(page []byte, n uint64) (err error) {
	m := t.run.memory
	word, to := m.nextWord(n), page[writeOffset(n):][:8]
	switch t.run.spec.Via {
	case ViaCPU:
		copy(to, word[:])
	case ViaPipe:
		err = t.pipe.store(to, word)
	case ViaProcess:
		err = processStore(to, word)
	default:
		err = fmt.Errorf("unknown way to access a page: %q", t.run.spec.Via)
	}
	if err == nil {
		m.state[n].written.Store(binary.LittleEndian.Uint64(word[:]))
	}
	return err
}

// storm sends SIGURG, which the runtime ignores, to all touching threads until
// the function it returns is called.
func (run *touchRun) storm() (end func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, t := range run.touchers {
				if tid := t.tid.Load(); tid != 0 {
					unix.Tgkill(unix.Getpid(), int(tid), unix.SIGURG)
				}
			}
			unix.Nanosleep(&unix.Timespec{Nsec: 20_000}, nil)
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

func (run *touchRun) close() {
	close(run.begin)
	run.next.Store(uint64(len(run.pages)))
	run.wait.Wait()
	for _, t := range run.touchers {
		t.pipe.close()
	}
}

// result merges what the threads saw.
func (run *touchRun) result() (*TouchResult, error) {
	result := &TouchResult{Wall: time.Since(run.start)}
	var samples []int64
	for _, t := range run.touchers {
		t.pipe.close()
		if t.err != nil {
			return nil, t.err
		}
		if len(t.samples) > 0 && (result.First == 0 || t.first < result.First) {
			result.First = t.first
		}
		samples = append(samples, t.samples...)
		result.Poisoned = append(result.Poisoned, t.poisoned...)
	}
	slices.Sort(samples)
	slices.Sort(result.Poisoned)
	result.Count = uint64(len(samples))
	result.Latency = summarize(samples)
	if run.spec.Samples {
		result.Samples = samples
	}
	return result, nil
}

// summarize gives the nearest-rank percentiles of sorted nanoseconds.
func summarize(sorted []int64) Latency {
	if len(sorted) == 0 {
		return Latency{}
	}
	var sum int64
	for _, s := range sorted {
		sum += s
	}
	rank := func(perMille int) time.Duration {
		return time.Duration(sorted[(len(sorted)*perMille+999)/1000-1])
	}
	return Latency{
		Min: time.Duration(sorted[0]), Mean: time.Duration(sum / int64(len(sorted))),
		P50: rank(500), P90: rank(900), P99: rank(990), P999: rank(999), Max: rank(1000),
	}
}
