package pager

import (
	"context"
)

// fetchJob fetches into one slot.
type fetchJob struct {
	e         *Engine
	action    Action
	zero, bad uint64
	err       error
}

// fetch gets content without waiting for it.
func (e *Engine) fetch(a Action) {
	if e.resident != nil {
		if content := e.resident.Bytes(int64(a.Span.Offset), int(a.Span.Size)); content != nil {
			e.slots[a.Slot] = content
			e.core.Fetched(a, 0, 0)
			return
		}
	}
	e.slots[a.Slot] = e.memory[uint64(a.Slot)*e.slotSize:][:a.Span.Size]
	j := &e.jobs[a.Slot]
	*j = fetchJob{e: e, action: a}
	e.fetches.Add(1)
	e.opt.Pool.submit(j, a.Background)
}

func (j *fetchJob) run() {
	e := j.e
	defer e.fetches.Done()
	j.zero, j.bad, j.err = fetch(e.ctx, e.opt.Source, j.action.Span, e.slots[j.action.Slot])
	e.mu.Lock()
	e.results = append(e.results, j)
	e.ring()
	e.mu.Unlock()
}

// fetch fills buf with the content of a span. Bit i of zero and bad is the span's
// page i, as Core.Fetched wants them; err is the first reason for a bad page.
func fetch(ctx context.Context, src Source, span Span, buf []byte) (zero, bad uint64, err error) {
	pages := func(from, to uint64) (mask uint64) {
		for p := from / span.PageSize; p*span.PageSize < to; p++ {
			mask |= 1 << p
		}
		return mask
	}
	var data uint64
	for at := uint64(0); at < span.Size; {
		n, isZero, e := src.Extent(ctx, int64(span.Offset+at))
		if e != nil {
			err = first(err, e)
			bad |= pages(at, span.Size) // the map of the content is missing here
			break
		}
		end := min(at+uint64(n), span.Size)
		if isZero {
			clear(buf[at:end]) // the rest of a huge page may have content
		} else {
			data |= pages(at, end)
			if e := src.ReadAt(ctx, buf[at:end], int64(span.Offset+at)); e != nil {
				err = first(err, e)
				bad |= pages(at, end)
			}
		}
		at = end
	}
	return pages(0, span.Size) &^ (data | bad), bad, err
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
