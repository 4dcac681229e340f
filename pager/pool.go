package pager

import "sync"

// A Pool runs what may block, the fetching of content, for any number of engines.
// What somebody waits for goes first, and one worker is always kept for it. Work
// that keeps a CPU busy limits itself elsewhere, so a pool has more workers than
// the machine has CPUs.
type Pool struct {
	mu      sync.Mutex
	work    sync.Cond
	demand  queue[job]
	idle    queue[job]
	workers int
	onIdle  int // workers busy with what nobody waits for
	closed  bool
	done    sync.WaitGroup
}

type job interface{ run() }

// NewPool starts a pool of at least two workers.
func NewPool(workers int) *Pool {
	p := &Pool{workers: max(workers, 2)}
	p.work.L = &p.mu
	for range p.workers {
		p.done.Go(p.worker)
	}
	return p
}

// Close waits for what was submitted and ends the workers.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.work.Broadcast()
	p.done.Wait()
}

func (p *Pool) submit(j job, background bool) {
	p.mu.Lock()
	if background {
		p.idle.push(j)
	} else {
		p.demand.push(j)
	}
	p.mu.Unlock()
	p.work.Signal()
}

func (p *Pool) worker() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		j, background, ok := p.take()
		switch {
		case ok:
			p.mu.Unlock()
			j.run()
			p.mu.Lock()
			if background {
				p.onIdle--
			}
		case p.closed && p.demand.n+p.idle.n == 0:
			return
		default:
			p.work.Wait()
		}
	}
}

func (p *Pool) take() (j job, background, ok bool) {
	if j, ok := p.demand.pop(); ok {
		return j, false, true
	}
	if p.onIdle < p.workers-1 {
		if j, ok := p.idle.pop(); ok {
			p.onIdle++
			return j, true, true
		}
	}
	return nil, false, false
}
