package pager

import (
	"time"

	"golang.org/x/sys/unix"
)

// The pause after which an install that the kernel refused is tried again: short
// at first, for a contended lock, then longer, for a client that is out of memory
// or frozen half-way through a madvise.
const (
	minBackoff = 20 * time.Microsecond
	maxBackoff = 5 * time.Millisecond
)

// refusal is the time during which the kernel has refused every install.
type refusal struct {
	backoff time.Duration // 0: the last install was not refused
	until   time.Duration // nothing is installed before
	memory  bool          // there was ENOMEM, which is not waited out for ever:
	since   time.Duration // again and again since then
	last    time.Duration // and for the last time then
}

// Complete reports what came of an action: done bytes from the start of the span,
// and the errno with which it stopped, or 0.
func (c *Core) Complete(a Action, done int64, errno unix.Errno) {
	switch a.Kind {
	case ActionKill:
		return
	case ActionWake:
		if errno != 0 { // whoever waits there would wait for ever
			c.kill()
		}
		return
	}
	c.inFlight--
	c.stats.called(a.Kind)
	n := min(int(max(done, 0)/int64(a.Span.PageSize)), a.pages)
	for i := range n {
		c.landed(a, i)
	}
	if n > 0 {
		c.refusal = refusal{}
	}
	if n < a.pages {
		c.stopped(a, n, errno)
	}
	if a.block >= 0 {
		c.blocks[a.block].claims--
		c.settle(a.block)
	}
}

// landed records that page i of a claim was installed.
func (c *Core) landed(a Action, i int) {
	ref := pageRef{a.first.region, a.first.page + uint32(i)}
	c.stats.installed(a.Kind)
	if !c.unclaim(ref) {
		return
	}
	p := c.state(ref)
	if p.has(wanted) {
		c.stats.answered(a.Kind, p, c.now-a.since)
	}
	what := present
	if a.Kind == ActionPoison {
		what = poisoned
	}
	c.become(ref, p&^wanted, what)
}

// unclaim takes a page out of an action's hands, and reports whether what came of
// the action tells of the page as it is now. If not, whoever waits is answered anew.
func (c *Core) unclaim(ref pageRef) (told bool) {
	p := c.state(ref)
	c.setState(ref, p&^(claimed|again))
	if p.has(again) && p.has(wanted) {
		c.answer(ref)
	}
	return !p.has(again)
}

// become changes a page's content and keeps count of those that are absent.
func (c *Core) become(ref pageRef, p, what page) {
	if p.is(absent) {
		c.absent--
	}
	c.setState(ref, p.become(what))
}

// stopped gives back the pages of a claim from n on, and deals with the reason.
func (c *Core) stopped(a Action, n int, errno unix.Errno) {
	c.stats.refused(errno)
	first := pageRef{a.first.region, a.first.page + uint32(n)}
	told := false
	for i := a.pages - 1; i >= n; i-- {
		told = c.giveBack(a, pageRef{a.first.region, a.first.page + uint32(i)})
	}
	switch {
	case errno == unix.EEXIST:
		if told {
			c.exists(first)
		}
	case errno == unix.EAGAIN:
		c.refuse(a, n, false)
	case errno == unix.ENOMEM:
		c.refuse(a, n, true)
	case errno == unix.ESRCH:
		c.gone = true
	case errno == 0: // a short count without a reason: the rest is tried again
	case a.pages-n > 1 && a.block >= 0:
		// Several mappings lie under the span, or one page of it is at fault: find
		// out which by going on page by page.
		c.blocks[a.block].single = true
	case errno == unix.ENOENT:
		if told {
			c.unmapped(first)
		}
	case a.Kind == ActionPoison:
		c.kill()
	case errno == unix.EFAULT && a.Kind == ActionCopy:
		b := &c.blocks[a.block]
		b.bad |= 1 << (first.page - b.first)
	default:
		c.fail(a, first)
	}
}

// giveBack returns a page that was not installed to whoever it was claimed from.
func (c *Core) giveBack(a Action, ref pageRef) (told bool) {
	told = c.unclaim(ref)
	if p := c.state(ref); told && a.block < 0 && p.has(wanted) {
		c.pages.push(pageWork{ref: ref, poison: a.Kind == ActionPoison, was: p & content, since: a.since})
	}
	return told
}

// exists records a page that turned out to be present. The kernel did not wake
// those who wait for it.
func (c *Core) exists(ref pageRef) {
	c.refusal = refusal{}
	if p := c.state(ref); !p.is(poisoned) { // poison over poison is refused alike
		c.become(ref, p, present)
	}
	c.wake(ref)
}

// unmapped records a page that is in no registered mapping any more: the client gave
// it up in a way that makes no event. Should someone wait there after all, they fault
// again and are heard again.
func (c *Core) unmapped(ref pageRef) {
	c.become(ref, c.state(ref), removed)
	c.wake(ref)
}

// fail ends the attempts to give a page its content.
func (c *Core) fail(a Action, ref pageRef) {
	c.skip(a, ref)
	if p := c.state(ref); p.has(wanted) {
		c.pages.push(pageWork{ref: ref, poison: true, was: p & content, since: a.since})
	}
}

// skip keeps a block from trying a page again.
func (c *Core) skip(a Action, ref pageRef) {
	if a.block >= 0 {
		b := &c.blocks[a.block]
		b.skip |= 1 << (ref.page - b.first)
	}
}

// wake answers a page whose waiters only have to look again.
func (c *Core) wake(ref pageRef) {
	if p := c.state(ref); p.has(wanted) {
		c.setState(ref, p&^wanted)
		c.wakes.push(ref)
	}
}

// refuse holds all installing back for a while: what makes the kernel refuse one
// span, an unread event or a lack of memory, concerns the whole address space.
//
// EAGAIN is waited out without limit. It lasts as long as a thread of the client
// is inside a call that changes the layout, and a client that is frozen there is
// not harmed. Lack of memory ends in poison, and if that is refused too, in the
// client's end.
func (c *Core) refuse(a Action, n int, memory bool) {
	r := &c.refusal
	if memory {
		if !r.memory || c.now-r.last > 10*maxBackoff {
			r.memory, r.since = true, c.now
		}
		r.last = c.now
	}
	r.backoff = min(max(2*r.backoff, minBackoff), maxBackoff)
	r.until = c.now + r.backoff
	if !memory || c.now-r.since < c.cfg.Patience {
		return
	}
	if a.Kind == ActionPoison {
		c.kill()
		return
	}
	for i := n; i < a.pages; i++ {
		if ref := (pageRef{a.first.region, a.first.page + uint32(i)}); c.state(ref).has(wanted) {
			c.fail(a, ref)
		}
	}
	r.since = c.now
}
