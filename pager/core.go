package pager

import "time"

// A Core decides what to do about a client's faults. It belongs to one goroutine,
// or to whoever holds the caller's lock. Times are since any fixed moment.
type Core struct {
	cfg     Config
	regions []region
	now     time.Duration

	// blocks are those that something is going on with; the others have no entry.
	blocks []block
	unused []int32 // free entries of blocks
	slots  []int   // free slots

	pages   queue[pageWork] // pages to be answered one by one
	fetch   queue[int32]    // blocks that someone waits for, to be fetched
	ready   queue[int32]    // blocks that someone waits for, to be installed
	idle    queue[int32]    // blocks that nobody waits for, to be installed
	retries []int32         // blocks whose fetch is tried again at their time
	wakes   queue[pageRef]

	refusal    refusal
	prefetch   cursor
	leaving    bool          // everything is to be installed
	rewindAt   time.Duration // prefetching begins again then, if not 0
	background int           // slots held by blocks that nobody waits for
	absent     int           // pages whose content is still to be installed
	inFlight   int           // claimed actions that have not come back

	gone   bool // the client's address space is no more
	killed bool // the core asked for the client's end
	asked  bool // ... and Next has handed that out

	stats Stats
}

// pageWork is a page that is answered by itself: with zeros, or, where its content
// can't be had, with poison.
type pageWork struct {
	ref    pageRef
	poison bool
	was    page // what poison was decided for; a removal since then makes it zeros
	since  time.Duration
}

// NewCore checks the regions and lays out their page tables, all pages absent.
func NewCore(cfg Config) (*Core, error) {
	cfg = cfg.withDefaults()
	regions, err := newRegions(cfg.Regions, cfg.BlockSize)
	if err != nil {
		return nil, err
	}
	c := &Core{cfg: cfg, regions: regions}
	for i := range cfg.Slots {
		c.slots = append(c.slots, cfg.Slots-1-i)
	}
	for i := range regions {
		c.absent += len(regions[i].pages)
	}
	return c, nil
}

// Tick tells the core the time. Everything else happens at the time of the last Tick.
func (c *Core) Tick(now time.Duration) {
	c.now = now
	due := c.retries[:0]
	for _, b := range c.retries {
		if c.blocks[b].retryAt <= now {
			c.fetch.push(b)
		} else {
			due = append(due, b)
		}
	}
	c.retries = due
	if c.rewindAt != 0 && now >= c.rewindAt {
		c.prefetch, c.rewindAt = cursor{}, 0
	}
}

// Leave has everything that is missing installed, asked for or not, however often
// that must be tried.
func (c *Core) Leave() {
	c.leaving, c.cfg.Prefetch, c.prefetch = true, true, cursor{}
}

// Deadline is when Tick is next needed though nothing else happens; ok is false
// where it never is.
func (c *Core) Deadline() (at time.Duration, ok bool) {
	if c.Ended() {
		return 0, false
	}
	earlier := func(t time.Duration) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	for _, b := range c.retries {
		earlier(c.blocks[b].retryAt)
	}
	if c.rewindAt != 0 {
		earlier(c.rewindAt)
	}
	if c.refusal.until > c.now && c.pages.n+c.ready.n+c.idle.n > 0 {
		earlier(c.refusal.until)
	}
	return at, ok
}

// Fault takes a missing-page fault at an address, which need not be aligned. Equal
// faults collapse: a signal to a waiting thread makes the kernel send the message
// again, without end if the fault was the kernel's own.
func (c *Core) Fault(addr uint64) {
	c.stats.Faults++
	ref, ok := c.locate(addr)
	if !ok {
		c.stats.Stray++
		c.kill() // it would wait for ever: nobody has content for it
		return
	}
	p := c.state(ref)
	if p.has(wanted) {
		c.stats.Duplicates++
	}
	switch {
	case p.has(claimed): // mostly late, and the claim has answered it; but who knows
		c.setState(ref, p|wanted|again)
	case !p.has(wanted):
		c.setState(ref, p|wanted)
		c.answer(ref)
	}
}

// answer sees to it that whoever waits for a page gets an answer.
func (c *Core) answer(ref pageRef) {
	if c.state(ref).is(absent) {
		c.want(ref)
	} else {
		c.pages.push(pageWork{ref: ref, since: c.now})
	}
}

// locate gives the page at an address.
func (c *Core) locate(addr uint64) (pageRef, bool) {
	i := c.find(addr)
	if i < 0 {
		return pageRef{}, false
	}
	r := &c.regions[i]
	return pageRef{int32(i), uint32((addr - r.Address) / r.PageSize)}, true
}

// Remove takes a remove event: the client gives up size bytes from addr on, and
// from now on they are zeros. Pages that are only partly inside are kept: of a
// huge page the kernel reports parts, but gives up only the whole.
func (c *Core) Remove(addr, size uint64) {
	c.stats.Removes++
	end := addr + size
	if end < addr {
		return
	}
	for i := range c.regions {
		r := &c.regions[i]
		lo, hi := max(addr, r.Address), min(end, r.end())
		if lo >= hi {
			continue
		}
		first := (lo - r.Address + r.PageSize - 1) / r.PageSize
		last := (hi - r.Address) / r.PageSize
		for p := first; p < last; p++ {
			c.remove(pageRef{int32(i), uint32(p)})
		}
	}
}

func (c *Core) remove(ref pageRef) {
	p := c.state(ref)
	if p.is(absent) {
		c.absent--
	}
	p = p.become(removed)
	if p.has(claimed) {
		p |= again
	}
	c.setState(ref, p)
	if p.has(wanted) && !p.has(claimed) { // its block will no longer answer it
		c.answer(ref)
	}
}

// Ended reports whether the client has exited or was condemned: Next then has
// nothing more to give than that.
func (c *Core) Ended() bool { return c.gone || c.killed }

// Filled reports whether no page waits for content from the source any more and
// nothing is under way. The kernel answers every later fault by itself, rightly,
// once the regions are unregistered.
func (c *Core) Filled() bool {
	return c.absent == 0 && c.inFlight == 0 && c.pages.n == 0 && c.wakes.n == 0
}

func (c *Core) kill() { c.killed = true }
