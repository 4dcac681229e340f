package pager

import "time"

// Next fills a with the next thing to do and claims its pages; it reports false when
// there is nothing to do before the next event or Deadline. What someone waits for
// comes first.
//
// The action is filled in place because it passes through several hands here, which
// at one fault in 8 µs is 1 in 50 of the time.
func (c *Core) Next(a *Action) bool {
	switch {
	case c.Ended():
		return c.end(a)
	case c.nextWake(a):
		return true
	case c.nextFetch(a): // early, so that it goes on while pages are installed
		return true
	case c.refusal.until > c.now:
		return c.nextPrefetch(a)
	}
	if c.nextPage(a) || c.nextInstall(a, &c.ready, onReady) {
		return true
	}
	if c.nextInstall(a, &c.idle, onIdle) {
		a.Background = true
		return true
	}
	return c.nextPrefetch(a)
}

// end asks for the client's end, once, if that was decided.
func (c *Core) end(a *Action) bool {
	if !c.killed || c.gone || c.asked {
		return false
	}
	c.asked = true
	*a = Action{Kind: ActionKill, Slot: -1, block: -1}
	return true
}

// set fills in an action on pages, of a block or of none.
func (c *Core) set(a *Action, kind ActionKind, first pageRef, pages int, block int32) {
	r := &c.regions[first.region]
	*a = Action{
		Kind: kind, Slot: -1, first: first, pages: pages, block: block,
		Span: Span{
			Address:  r.address(first.page),
			Size:     uint64(pages) * r.PageSize,
			Offset:   r.Offset + uint64(first.page)*r.PageSize,
			PageSize: r.PageSize,
		},
	}
}

func (c *Core) nextWake(a *Action) bool {
	ref, ok := c.wakes.pop()
	if ok {
		c.set(a, ActionWake, ref, 1, -1)
	}
	return ok
}

// nextFetch fetches a block that someone waits for.
func (c *Core) nextFetch(a *Action) bool {
	if len(c.slots) == 0 {
		return false
	}
	i, ok := c.fetch.pop()
	if ok {
		c.fetchBlock(a, i)
	}
	return ok
}

func (c *Core) fetchBlock(a *Action, i int32) {
	c.takeSlot(i)
	c.inFlight++
	b := &c.blocks[i]
	b.fetching = true
	c.set(a, ActionFetch, pageRef{b.region, b.first}, b.pages, i)
	a.Slot = b.slot
	a.Background = !b.waited
}

// nextPage answers a page by itself.
func (c *Core) nextPage(a *Action) bool {
	for {
		w, ok := c.pages.pop()
		if !ok {
			return false
		}
		p := c.state(w.ref)
		if p.has(claimed) || !p.has(wanted) {
			continue // its answer is under way, or was given
		}
		// A page that is recorded present is tried with zeros too. Mostly it is there
		// and the message was late: the kernel says so and the waiter is woken. If it
		// is not, the client gave it up without an event that we could hear.
		kind := ActionZero
		if w.poison && p.is(w.was) || p.is(poisoned) {
			kind = ActionPoison
		}
		c.claim(a, kind, w.ref, 1, -1, w.since)
		return true
	}
}

// nextInstall installs a run of the first block on a queue that still has one.
func (c *Core) nextInstall(a *Action, q *queue[int32], where place) bool {
	for q.n > 0 {
		i := q.ring[q.head]
		b := &c.blocks[i]
		if b.place != where || b.slot < 0 || b.fetching {
			q.pop() // it has gone elsewhere since
			continue
		}
		start, n, any := c.run(b)
		if !any {
			q.pop()
			b.place = nowhere
			c.settle(i)
			continue
		}
		kind := ActionCopy
		if b.zero>>start&1 != 0 {
			kind = ActionZero
		}
		c.claim(a, kind, pageRef{b.region, b.first + uint32(start)}, n, i, b.since)
		a.Slot = b.slot
		a.SlotOffset = uint64(start) * a.Span.PageSize
		b.claims++
		return true
	}
	return false
}

// claim takes pages for an action.
func (c *Core) claim(a *Action, kind ActionKind, first pageRef, n int, block int32, since time.Duration) {
	c.inFlight++
	pages := c.regions[first.region].pages[first.page:][:n]
	for i := range pages {
		pages[i] |= byte(claimed)
	}
	c.set(a, kind, first, n, block)
	a.since = since
}

// leaveRetry is the pause between two rounds over what is still missing.
const leaveRetry = 100 * time.Millisecond

// cursor is where prefetching has come to.
type cursor struct{ region, block int }

// nextPrefetch fetches the next block that nobody asked for yet.
func (c *Core) nextPrefetch(a *Action) bool {
	if !c.cfg.Prefetch || len(c.slots) == 0 || c.background >= max(c.cfg.Slots*3/4, 1) {
		return false
	}
	for ; c.prefetch.region < len(c.regions); c.prefetch = (cursor{c.prefetch.region + 1, 0}) {
		r := &c.regions[c.prefetch.region]
		for c.prefetch.block < len(r.active) {
			n := c.prefetch.block
			c.prefetch.block++
			if r.active[n] < 0 && r.anyAbsent(n) {
				c.fetchBlock(a, c.activate(c.prefetch.region, n))
				return true
			}
		}
	}
	if c.leaving && c.absent > 0 && c.rewindAt == 0 {
		c.rewindAt = c.now + leaveRetry // something could not be had, or is under way
	}
	return false
}

func (r *region) anyAbsent(block int) bool {
	first, n := r.blockPages(block)
	for _, p := range r.pages[first : int(first)+n] {
		if page(p).is(absent) {
			return true
		}
	}
	return false
}
