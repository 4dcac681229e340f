// Package pager is the page-fault engine: it fills a client's memory from a
// source of content as the client touches it.
//
// It has two halves. [Core] decides. It is pure: events go in, actions come out,
// and it does no I/O, reads no clock and starts no goroutine, so that it can be
// run against a model of the kernel under any schedule. [Engine] acts. One locked
// OS thread reads the target's events, feeds the core and issues its actions; what
// may block, fetching content, runs on a [Pool] and comes back as an event.
//
// The one promise, which the tests check after every step:
//
//	A client never sees anything but the source's content where nothing was
//	removed, zeros where it was, its own writes where it wrote, or SIGBUS where
//	the content cannot be had.
//
// # Claim and complete
//
// [Core.Next] hands out an action and claims its pages; [Core.Complete] reports
// what the kernel made of it. Between the two the pages are nobody else's. A
// remove event that is applied in between takes the claim away, and the late
// completion then changes nothing.
//
// One order the core cannot see to: an action that installs pages must have been
// carried out before the next event is read, for an install that was decided
// before a remove event was read, and carried out after, brings back content that
// the client has given up. A single thread gives that for free. Whoever adds
// threads that install must hold a lock, shared, from Next until the call has
// returned, and the reader must hold it exclusively from the read until the
// events are applied.
package pager
