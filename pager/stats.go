package pager

import (
	"math/bits"
	"time"

	"golang.org/x/sys/unix"
)

// Stats are a session's figures since it began.
type Stats struct {
	Faults     uint64 // page-fault messages read
	Duplicates uint64 // of these, repeats of one that was being answered
	Stray      uint64 // of these, outside every region
	Removes    uint64 // remove events

	Copied   uint64 // install calls that copied content, and so on
	Zeroed   uint64
	Poisoned uint64

	PagesCopied   uint64
	PagesZeroed   uint64
	PagesPoisoned uint64

	Fetched       uint64 // blocks fetched
	FailedFetches uint64 // of these, with something that could not be had

	// Refusals of the kernel to install something, by reason.
	Busy        uint64 // EAGAIN: an event was unread, or a lock was contended
	Existing    uint64 // EEXIST: the page was there
	OutOfMemory uint64 // ENOMEM
	Unmapped    uint64 // ENOENT: not inside one registered mapping
	OtherErrors uint64

	// Latency is the time from reading a fault to its answer, by what the answer was.
	Content Histogram // the source's content
	Zero    Histogram // zeros that the source has
	Removed Histogram // zeros where the client gave a page up
	Failed  Histogram // poison

	// Absent is the number of pages whose content has not been installed.
	Absent int
}

// Stats gives the figures as they are now.
func (c *Core) Stats() Stats {
	s := c.stats
	s.Absent = c.absent
	return s
}

func (s *Stats) answered(kind ActionKind, p page, d time.Duration) {
	switch {
	case kind == ActionPoison:
		s.Failed.Add(d)
	case kind == ActionCopy:
		s.Content.Add(d)
	case p.is(absent):
		s.Zero.Add(d)
	default:
		s.Removed.Add(d)
	}
}

func (s *Stats) installed(kind ActionKind) {
	switch kind {
	case ActionCopy:
		s.PagesCopied++
	case ActionZero:
		s.PagesZeroed++
	case ActionPoison:
		s.PagesPoisoned++
	}
}

// called counts the calls, of which one may install many pages.
func (s *Stats) called(kind ActionKind) {
	switch kind {
	case ActionCopy:
		s.Copied++
	case ActionZero:
		s.Zeroed++
	case ActionPoison:
		s.Poisoned++
	}
}

func (s *Stats) refused(errno unix.Errno) {
	switch errno {
	case 0:
	case unix.EAGAIN:
		s.Busy++
	case unix.EEXIST:
		s.Existing++
	case unix.ENOMEM:
		s.OutOfMemory++
	case unix.ENOENT:
		s.Unmapped++
	default:
		s.OtherErrors++
	}
}

// A Histogram counts durations in buckets whose width is a quarter of their size,
// so that a quantile is at most 25% too high. Its zero value is empty.
type Histogram struct {
	Buckets [160]uint64
	Count   uint64
	Sum     time.Duration
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	h.Buckets[bucket(d)]++
	h.Count++
	h.Sum += d
}

// bucket numbers durations by the place of their leading bit and the two bits
// behind it.
func bucket(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < 4 {
		return int(n)
	}
	shift := bits.Len64(n) - 3
	return min(4+shift*4+int(n>>shift&3), len(Histogram{}.Buckets)-1)
}

// Quantile is an upper bound, the bucket's, of the given share of the durations,
// or 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.Count == 0 {
		return 0
	}
	left := min(uint64(q*float64(h.Count))+1, h.Count)
	for i, n := range h.Buckets {
		if n >= left {
			return bucketEnd(i)
		}
		left -= n
	}
	return bucketEnd(len(h.Buckets) - 1)
}

func bucketEnd(i int) time.Duration {
	if i < 4 {
		return time.Duration(i)
	}
	shift := (i - 4) / 4
	return time.Duration((uint64(4+(i-4)%4)+1)<<shift - 1)
}
