package pager

import (
	"sync"

	"faultline/internal/cpu"
)

// A Pool runs what may block, the fetching of content, for any number of engines.
// Half of its workers serve what somebody waits for and the other half what nobody
// does, at a lower priority, so that neither demand nor the clients themselves wait
// for prefetching. Work that keeps a CPU busy limits itself elsewhere, so a pool has
// more workers than the machine has CPUs.
type Pool struct {
	demand, background jobs
	done               sync.WaitGroup
}

// jobs is a queue with workers behind it.
type jobs struct {
	mu     sync.Mutex
	some   sync.Cond
	queue  queue[job]
	closed bool
}

type job interface{ run() }

// NewPool starts a pool of at least two workers.
func NewPool(workers int) *Pool {
	p := &Pool{}
	p.demand.some.L, p.background.some.L = &p.demand.mu, &p.background.mu
	for i := range max(workers, 2) {
		if i%2 == 0 {
			p.done.Go(p.demand.work)
		} else {
			p.done.Go(func() {
				cpu.Background()
				p.background.work()
			})
		}
	}
	return p
}

// Close waits for what was submitted and ends the workers.
func (p *Pool) Close() {
	p.demand.close()
	p.background.close()
	p.done.Wait()
}

func (p *Pool) submit(j job, background bool) {
	if background {
		p.background.push(j)
	} else {
		p.demand.push(j)
	}
}

func (q *jobs) push(j job) {
	q.mu.Lock()
	q.queue.push(j)
	q.mu.Unlock()
	q.some.Signal()
}

func (q *jobs) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.some.Broadcast()
}

func (q *jobs) work() {
	for {
		j, ok := q.next()
		if !ok {
			return
		}
		j.run()
	}
}

func (q *jobs) next() (j job, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if j, ok := q.queue.pop(); ok || q.closed {
			return j, ok
		}
		q.some.Wait()
	}
}
