package pager

import "sync"

// A Pool runs what may block, the fetching of content, for any number of engines.
// What somebody waits for goes first, and a quarter of the workers, at least one, do
// nothing else. Work that keeps a CPU busy limits itself elsewhere, so a pool has
// more workers than the machine has CPUs.
type Pool struct {
	mu     sync.Mutex
	demand queue[job]
	idle   queue[job]
	any    sync.Cond // wakes a worker that does both
	urgent sync.Cond // wakes one that is kept for demand
	kept   int       // of these, how many wait
	closed bool
	done   sync.WaitGroup
}

type job interface{ run() }

// NewPool starts a pool of at least two workers.
func NewPool(workers int) *Pool {
	workers = max(workers, 2)
	p := &Pool{}
	p.any.L, p.urgent.L = &p.mu, &p.mu
	kept := max(workers/4, 1)
	for range kept {
		p.done.Go(p.demandWorker)
	}
	for range workers - kept {
		p.done.Go(p.worker)
	}
	return p
}

// Close waits for what was submitted and ends the workers.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.any.Broadcast()
	p.urgent.Broadcast()
	p.done.Wait()
}

func (p *Pool) submit(j job, background bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case background:
		p.idle.push(j)
		p.any.Signal()
	case p.kept > 0:
		p.kept--
		p.demand.push(j)
		p.urgent.Signal()
	default:
		p.demand.push(j)
		p.any.Signal()
	}
}

func (p *Pool) worker() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		j, ok := p.demand.pop()
		if !ok {
			j, ok = p.idle.pop()
		}
		switch {
		case ok:
			p.perform(j)
		case p.closed:
			return
		default:
			p.any.Wait()
		}
	}
}

func (p *Pool) demandWorker() {
	lockUrgently()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		j, ok := p.demand.pop()
		switch {
		case ok:
			p.perform(j)
		case p.closed:
			return
		default:
			p.kept++
			p.urgent.Wait()
		}
	}
}

// perform runs a job without the lock.
func (p *Pool) perform(j job) {
	p.mu.Unlock()
	defer p.mu.Lock()
	j.run()
}
