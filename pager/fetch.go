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
func (e *Engine) fetch(a *Action) {
	if e.resident != nil {
		if content := e.resident.Bytes(int64(a.Span.Offset), int(a.Span.Size)); content != nil {
			e.slots[a.Slot] = content
			e.core.Fetched(*a, 0, 0)
			return
		}
	}
	e.slots[a.Slot] = e.memory[uint64(a.Slot)*e.slotSize:][:a.Span.Size]
	j := &e.jobs[a.Slot]
	*j = fetchJob{e: e, action: *a}
	e.fetches.Add(1)
	e.opt.Pool.submit(j, a.Background)
}

func (j *fetchJob) run() {
	e := j.e
	defer e.fetches.Done()
	ctx := e.demandCtx
	if j.action.Background {
		ctx = e.fetchCtx
	}
	j.zero, j.bad, j.err = fetch(ctx, e.opt.Source, j.action.Span, e.slots[j.action.Slot])
	e.mu.Lock()
	e.results = append(e.results, j)
	e.notify()
	e.mu.Unlock()
}

// fetch fills buf with the content of a span. Bit i of zero and bad is the span's
// page i, as Core.Fetched wants them; err is the first reason for a bad page.
//
// The span is read at once, since a source may have it as one frame, which would
// otherwise be verified and decoded again for every run of data in it. Only when
// that fails is it read piece by piece, to learn what can be had.
func fetch(ctx context.Context, src Source, span Span, buf []byte) (zero, bad uint64, err error) {
	var data uint64
	for at := uint64(0); at < span.Size; {
		n, isZero, e := src.Extent(ctx, int64(span.Offset+at))
		if e != nil {
			return 0, span.mask(0, span.Size), e
		}
		end := min(at+uint64(n), span.Size)
		if !isZero {
			data |= span.mask(at, end)
		}
		at = end
	}
	zero = span.mask(0, span.Size) &^ data
	if data == 0 {
		return zero, 0, nil
	}
	if err = src.ReadAt(ctx, buf[:span.Size], int64(span.Offset)); err != nil {
		bad, err = fetchPieces(ctx, src, span, buf, err)
	}
	return zero, bad, err
}

// fetchPieces is fetch for a span of which something can't be read.
func fetchPieces(ctx context.Context, src Source, span Span, buf []byte, why error) (bad uint64, err error) {
	for at := uint64(0); at < span.Size; {
		n, isZero, e := src.Extent(ctx, int64(span.Offset+at))
		if e != nil {
			return bad | span.mask(at, span.Size), e
		}
		end := min(at+uint64(n), span.Size)
		if isZero {
			clear(buf[at:end]) // the rest of a huge page may have content
		} else if e := src.ReadAt(ctx, buf[at:end], int64(span.Offset+at)); e != nil {
			bad, why = bad|span.mask(at, end), e
		}
		at = end
	}
	if bad == 0 { // it passed
		return 0, nil
	}
	return bad, why
}

// mask has a bit for each page of the span that has a byte in the range.
func (s Span) mask(from, to uint64) (mask uint64) {
	for p := from / s.PageSize; p*s.PageSize < to; p++ {
		mask |= 1 << p
	}
	return mask
}
