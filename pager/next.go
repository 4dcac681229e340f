package pager

import "time"

// Next hands out the next thing to do and claims its pages; ok is false when there
// is nothing to do before the next event or Deadline. What someone waits for comes
// first.
func (c *Core) Next() (a Action, ok bool) {
	if c.Ended() {
		return c.end()
	}
	if ref, ok := c.wakes.pop(); ok {
		return c.action(ActionWake, ref, 1, -1), true
	}
	if a, ok := c.nextFetch(); ok { // first, so that it goes on while pages are installed
		return a, true
	}
	if c.refusal.until <= c.now {
		if a, ok := c.nextPage(); ok {
			return a, true
		}
		if a, ok := c.nextInstall(&c.ready, onReady); ok {
			return a, true
		}
		if a, ok := c.nextInstall(&c.idle, onIdle); ok {
			a.Background = true
			return a, true
		}
	}
	return c.nextPrefetch()
}

// end asks for the client's end, once, if that was decided.
func (c *Core) end() (Action, bool) {
	if !c.killed || c.gone || c.asked {
		return Action{}, false
	}
	c.asked = true
	return Action{Kind: ActionKill, Slot: -1, block: -1}, true
}

func (c *Core) action(kind ActionKind, first pageRef, pages int, block int32) Action {
	return Action{Kind: kind, Span: c.span(first, pages), Slot: -1, first: first, pages: pages, block: block}
}

// nextFetch fetches a block that someone waits for.
func (c *Core) nextFetch() (Action, bool) {
	if len(c.slots) == 0 {
		return Action{}, false
	}
	i, ok := c.fetch.pop()
	if !ok {
		return Action{}, false
	}
	return c.fetchAction(i), true
}

func (c *Core) fetchAction(i int32) Action {
	c.takeSlot(i)
	c.inFlight++
	b := &c.blocks[i]
	b.fetching = true
	a := c.action(ActionFetch, pageRef{b.region, b.first}, b.pages, i)
	a.Slot = b.slot
	a.Background = !b.waited
	return a
}

// nextPage answers a page by itself.
func (c *Core) nextPage() (Action, bool) {
	for {
		w, ok := c.pages.pop()
		if !ok {
			return Action{}, false
		}
		p := c.get(w.ref)
		if p.has(claimed) || !p.has(wanted) {
			continue // its answer is under way, or was given
		}
		// A page that is recorded present is tried with zeros too. Mostly it is there
		// and the message was late: the kernel says so and the waiter is woken. If it
		// is not, the client gave it up without an event that we could hear.
		kind := ActionZero
		if w.poison || p.is(poisoned) {
			kind = ActionPoison
		}
		return c.claim(kind, w.ref, 1, -1, w.since), true
	}
}

// nextInstall installs a run of the first block on a queue that still has one.
func (c *Core) nextInstall(q *queue[int32], where place) (Action, bool) {
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
		a := c.claim(kind, pageRef{b.region, b.first + uint32(start)}, n, i, b.since)
		a.Slot = b.slot
		a.SlotOffset = uint64(start) * a.Span.PageSize
		b.claims++
		return a, true
	}
	return Action{}, false
}

// claim takes pages for an action.
func (c *Core) claim(kind ActionKind, first pageRef, n int, block int32, since time.Duration) Action {
	c.inFlight++
	for i := range n {
		ref := pageRef{first.region, first.page + uint32(i)}
		c.set(ref, c.get(ref)|claimed)
	}
	a := c.action(kind, first, n, block)
	a.since = since
	return a
}

// cursor is where prefetching has come to.
type cursor struct{ region, block int }

// nextPrefetch fetches the next block that nobody asked for yet.
func (c *Core) nextPrefetch() (Action, bool) {
	if !c.cfg.Prefetch || len(c.slots) == 0 || c.background >= max(c.cfg.Slots/2, 1) {
		return Action{}, false
	}
	for ; c.prefetch.region < len(c.regions); c.prefetch = (cursor{c.prefetch.region + 1, 0}) {
		r := &c.regions[c.prefetch.region]
		for c.prefetch.block < len(r.active) {
			n := c.prefetch.block
			c.prefetch.block++
			if r.active[n] < 0 && r.anyAbsent(n) {
				return c.fetchAction(c.activate(c.prefetch.region, n)), true
			}
		}
	}
	return Action{}, false
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
