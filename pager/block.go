package pager

import "time"

// A block is a run of pages that is fetched together, for as long as something is
// going on with it. Bit i of its masks is page first+i.
type block struct {
	region int32
	number int
	first  uint32
	pages  int

	slot   int    // where its content is, or -1
	zero   uint64 // the source has zeros
	bad    uint64 // the source can't give it
	skip   uint64 // don't try again before it is asked for again
	single bool   // install page by page: the block spans several mappings

	waited   bool          // someone waits for a page of it
	since    time.Duration // since then
	fetching bool
	place    place
	claims   int // actions handed out and not completed
	attempts int // fetches that left something bad
	retryAt  time.Duration
}

// place says on which queue a block stands.
type place uint8

const (
	nowhere place = iota
	onReady
	onIdle
)

// want sees to it that an absent page is fetched and installed.
func (c *Core) want(ref pageRef) {
	r := &c.regions[ref.region]
	n := r.blockOf(ref.page)
	i := r.active[n]
	if i < 0 {
		i = c.activate(int(ref.region), n)
		c.fetch.push(i)
	}
	b := &c.blocks[i]
	b.skip &^= 1 << (ref.page - b.first)
	if !b.waited {
		b.waited, b.since = true, c.now
		if b.slot >= 0 {
			c.background--
		}
	}
	if b.slot >= 0 && !b.fetching {
		c.enqueue(i)
	}
}

// activate gives a block an entry.
func (c *Core) activate(region, number int) int32 {
	r := &c.regions[region]
	first, pages := r.blockPages(number)
	var i int32
	if n := len(c.unused); n > 0 {
		i, c.unused = c.unused[n-1], c.unused[:n-1]
	} else {
		i = int32(len(c.blocks))
		c.blocks = append(c.blocks, block{})
	}
	c.blocks[i] = block{region: int32(region), number: number, first: first, pages: pages, slot: -1}
	r.active[number] = i
	return i
}

// retire takes a block's entry away.
func (c *Core) retire(i int32) {
	c.releaseSlot(i)
	b := &c.blocks[i]
	c.regions[b.region].active[b.number] = -1
	b.place = nowhere
	c.unused = append(c.unused, i)
}

// takeSlot gives a block a free slot.
func (c *Core) takeSlot(i int32) {
	b := &c.blocks[i]
	b.slot = c.slots[len(c.slots)-1]
	c.slots = c.slots[:len(c.slots)-1]
	if !b.waited {
		c.background++
	}
}

func (c *Core) releaseSlot(i int32) {
	b := &c.blocks[i]
	if b.slot < 0 {
		return
	}
	c.slots = append(c.slots, b.slot)
	b.slot = -1
	if !b.waited {
		c.background--
	}
}

// enqueue puts a block that has its content where Next finds it. An entry that it
// may have left on the idle queue is skipped there.
func (c *Core) enqueue(i int32) {
	b := &c.blocks[i]
	switch {
	case b.waited && b.place != onReady:
		b.place = onReady
		c.ready.push(i)
	case !b.waited && b.place == nowhere:
		b.place = onIdle
		c.idle.push(i)
	}
}

// Fetched answers a fetch action. Bit i of zero says that the span's page i is all
// zeros, so that the slot need not hold it; bit i of bad that its content can't be
// had, now or ever.
func (c *Core) Fetched(a Action, zero, bad uint64) {
	c.inFlight--
	b := &c.blocks[a.block]
	b.fetching = false
	b.zero, b.bad = zero, bad
	c.stats.Fetched++
	if bad != 0 {
		c.stats.FailedFetches++
	}
	c.settle(a.block)
}

// settle decides what becomes of a block whose content is there: more of it is to
// be installed, or fetched again, or it is done with.
func (c *Core) settle(i int32) {
	b := &c.blocks[i]
	if _, _, any := c.run(b); any {
		c.enqueue(i)
		return
	}
	if b.claims > 0 {
		return
	}
	if c.wantsBad(b) {
		b.attempts++
		if b.attempts < c.cfg.FetchAttempts {
			c.retry(i)
			return
		}
		c.poisonWanted(b)
	}
	c.retire(i)
}

// retry has a block fetched again after a pause.
func (c *Core) retry(i int32) {
	c.releaseSlot(i)
	b := &c.blocks[i]
	b.place = nowhere
	b.retryAt = c.now + c.cfg.FetchRetry<<(b.attempts-1)
	c.retries = append(c.retries, i)
}

// run finds the next pages of a block to install with one call, and whether they are zeros.
func (c *Core) run(b *block) (start, n int, any bool) {
	pages := c.regions[b.region].pages[b.first:]
	ok := func(i int) bool {
		p := page(pages[i])
		return p.is(absent) && !p.has(claimed) && (b.bad|b.skip)>>i&1 == 0
	}
	for start < b.pages && !ok(start) {
		start++
	}
	if start == b.pages {
		return 0, 0, false
	}
	n = 1
	for !b.single && start+n < b.pages && ok(start+n) && b.zero>>(start+n)&1 == b.zero>>start&1 {
		n++
	}
	return start, n, true
}

// badWanted calls do for each page that someone waits for and the source can't give.
func (c *Core) badWanted(b *block, do func(pageRef)) {
	for i := range b.pages {
		ref := pageRef{b.region, b.first + uint32(i)}
		if p := c.state(ref); b.bad>>i&1 != 0 && b.skip>>i&1 == 0 && p.is(absent) && p.has(wanted) && !p.has(claimed) {
			do(ref)
		}
	}
}

func (c *Core) wantsBad(b *block) (any bool) {
	c.badWanted(b, func(pageRef) { any = true })
	return any
}

func (c *Core) poisonWanted(b *block) {
	c.badWanted(b, func(ref pageRef) { c.pages.push(pageWork{ref: ref, poison: true, was: absent, since: b.since}) })
}
