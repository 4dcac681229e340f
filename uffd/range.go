package uffd

import "fmt"

// A Range is Len bytes of address space from Start. It is struct uffdio_range.
type Range struct {
	Start uint64
	Len   uint64
}

// End is the first address behind the range.
func (r Range) End() uint64 { return r.Start + r.Len }

// String writes the range as start+length in hexadecimal.
func (r Range) String() string { return fmt.Sprintf("%#x+%#x", r.Start, r.Len) }

// overflows reports whether the range runs past the end of the address space.
func (r Range) overflows() bool { return r.Start+r.Len < r.Start }
