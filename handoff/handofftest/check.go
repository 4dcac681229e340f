package handofftest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// check compares the pages, or all, with what they must contain.
func (m *memory) check(pages []uint64) (*CheckResult, error) {
	if err := m.checkPages(pages); err != nil {
		return nil, err
	}
	result := &CheckResult{Checked: uint64(len(pages))}
	if len(pages) == 0 {
		result.Checked = m.pages
	}
	for i := range result.Checked {
		n := i
		if len(pages) > 0 {
			n = pages[i]
		}
		if d := m.difference(n); d != nil {
			result.Different++
			if len(result.First) < 16 {
				result.First = append(result.First, *d)
			}
		}
	}
	return result, nil
}

// difference compares one page; a poisoned one differs.
func (m *memory) difference(n uint64) (d *Difference) {
	page, r, offset := m.page(n)
	state := &m.state[n]
	state.touched.Store(true)
	want, base := "image", m.image(n)
	if state.ballooned.Load() {
		want, base = "zeros", m.zeros
	}
	at, own, same := 0, false, false
	if poisoned := survive(func() { at, own, same = compare(page, base, n, state.written.Load()) }); !poisoned && same {
		return nil
	} else if poisoned {
		at = 0
	}
	if own {
		want = "own write"
	}
	return &Difference{Page: n, Address: r.Address + offset, ImageOffset: r.Offset + offset,
		At: uint64(at), Want: want, Saw: m.saw(page, n, at)}
}

// compare finds the first byte of page that is neither base's nor, where own is
// set, that of the word written last.
func compare(page, base []byte, n, written uint64) (at int, own, same bool) {
	if written == 0 {
		at = compareBytes(page, base)
		return at, false, at == len(page)
	}
	from := int(writeOffset(n))
	if at := compareBytes(page[:from], base); at < from {
		return at, false, false
	}
	if binary.LittleEndian.Uint64(page[from:]) != written {
		return from, true, false
	}
	at = from + 8 + compareBytes(page[from+8:], base[from+8:])
	return at, false, at == len(page)
}

// compareBytes is the length of the prefix of page that base begins with, too.
func compareBytes(page, base []byte) int {
	if bytes.Equal(page, base[:len(page)]) {
		return len(page)
	}
	at := 0
	for page[at] == base[at] {
		at++
	}
	return at
}

// saw describes the content of a page that is wrong.
func (m *memory) saw(page []byte, n uint64, at int) (what string) {
	if survive(func() {
		switch {
		case bytes.Equal(page, m.zeros):
			what = "zeros"
		case bytes.Equal(page, m.image(n)):
			what = "image"
		default:
			what = fmt.Sprintf("%x", page[at:min(at+16, len(page))])
		}
	}) {
		what = "SIGBUS"
	}
	return what
}

// survive reports whether f met memory that can't be had, which raises SIGBUS.
func survive(f func()) (poisoned bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			poisoned = isFault(r)
		}
	}()
	f()
	return false
}

// isFault tells a failed memory access from any other panic, which goes on.
func isFault(r any) bool {
	if _, ok := r.(interface{ Addr() uintptr }); !ok {
		panic(r)
	}
	return true
}

// poisoned accesses a page both ways.
func (m *memory) poisoned(n uint64) (Poison, error) {
	if err := m.checkPages([]uint64{n}); err != nil {
		return Poison{}, err
	}
	page, _, _ := m.page(n)
	m.state[n].touched.Store(true)
	var p Poison
	p.SIGBUS = survive(func() { sink.Store(uint64(page[0])) })
	pipe, err := newPipe()
	if err != nil {
		return p, err
	}
	defer pipe.close()
	err = pipe.load(page)
	if p.EFAULT = errors.Is(err, unix.EFAULT); p.EFAULT {
		err = nil
	}
	return p, err
}

// balloon gives pages up and remembers that they must read zero.
func (m *memory) balloon(ranges []PageRange) (struct{}, error) {
	for _, r := range ranges {
		if r.First+r.Count < r.First || r.First+r.Count > m.pages {
			return struct{}{}, fmt.Errorf("pages %d+%d: the client has %d", r.First, r.Count, m.pages)
		}
		for n := r.First; n < r.First+r.Count; {
			span := m.span(n, r.First+r.Count-n)
			if err := unix.Madvise(span, unix.MADV_DONTNEED); err != nil {
				return struct{}{}, fmt.Errorf("madvise(MADV_DONTNEED) of %d bytes from page %d: %w", len(span), n, err)
			}
			for range uint64(len(span)) / m.pageSize {
				m.state[n].written.Store(0)
				m.state[n].ballooned.Store(true)
				n++
			}
		}
	}
	return struct{}{}, nil
}

// span is the bytes of up to count pages from n that lie in one region.
func (m *memory) span(n, count uint64) []byte {
	_, r, offset := m.page(n)
	return r.bytes[offset:min(offset+count*m.pageSize, r.Size)]
}

// resident asks mincore(2), which counts in pages of 4096 bytes.
func (m *memory) resident() ([]PageRange, error) {
	ranges := []PageRange{}
	for _, r := range m.regions {
		in := make([]byte, r.Size/4096)
		if err := mincore(r.bytes, in); err != nil {
			return nil, fmt.Errorf("mincore of %d bytes at %#x: %w", r.Size, r.Address, err)
		}
		for n := range r.Size / m.pageSize {
			if in[n*m.pageSize/4096]&1 == 0 {
				continue
			}
			if last := len(ranges) - 1; last >= 0 && ranges[last].First+ranges[last].Count == r.first+n {
				ranges[last].Count++
			} else {
				ranges = append(ranges, PageRange{First: r.first + n, Count: 1})
			}
		}
	}
	return ranges, nil
}
