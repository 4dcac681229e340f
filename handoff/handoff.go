// Package handoff says what every way in delivers: a client, with an owned
// userfaultfd and the regions of its memory that show an image. The packages
// below it each speak one protocol; nothing else in the program knows which one
// a client came by.
package handoff

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"faultline/uffd"
)

// ErrBadRegions means that the regions a client sent can't be served.
var ErrBadRegions = errors.New("bad regions")

// A Region is a range of a client's addresses that shows a range of an image.
type Region struct {
	Address  uint64 // in the client's address space
	Size     uint64 // bytes
	Offset   uint64 // bytes into the image
	PageSize uint64 // bytes: 4096, or 2 MiB on hugetlbfs
}

// A Client is a process whose faults are to be answered, as a handshake
// delivered it. Whoever has it must Close it.
type Client struct {
	UFFD    *uffd.FD
	Regions []Region
	PID     int
	// PidFD refers to the client's process and polls readable once it has exited; -1
	// is none.
	PidFD int
	// Conn is the connection by which the client came, or nil.
	Conn io.Closer
}

// Close gives up everything the client brought. The consequences of closing the
// userfaultfd while the process lives are those of uffd.FD.Close.
func (c *Client) Close() error {
	var errs []error
	if c.UFFD != nil {
		errs = append(errs, c.UFFD.Close())
	}
	if c.PidFD >= 0 {
		errs = append(errs, unix.Close(c.PidFD))
		c.PidFD = -1
	}
	if c.Conn != nil {
		errs = append(errs, c.Conn.Close())
		c.Conn = nil
	}
	return errors.Join(errs...)
}

// CheckRegions reports, as ErrBadRegions, the first thing in regions that could
// not be served from an image of the given size in bytes: an empty list, empty or
// misaligned or overflowing ranges, an unknown page size, regions that overlap,
// content outside the image, more of it than there is.
func CheckRegions(regions []Region, imageSize uint64) error {
	if len(regions) == 0 {
		return fmt.Errorf("%w: none were sent", ErrBadRegions)
	}
	for i, r := range regions {
		if err := r.check(imageSize); err != nil {
			return fmt.Errorf("%w: region %d (address %#x, size %#x, offset %#x, page size %d): %w",
				ErrBadRegions, i, r.Address, r.Size, r.Offset, r.PageSize, err)
		}
	}
	sorted := slices.SortedFunc(slices.Values(regions), func(a, b Region) int { return cmp.Compare(a.Address, b.Address) })
	for i := 1; i < len(sorted); i++ {
		if a, b := sorted[i-1], sorted[i]; a.Address+a.Size > b.Address {
			return fmt.Errorf("%w: %#x+%#x and %#x+%#x overlap", ErrBadRegions, a.Address, a.Size, b.Address, b.Size)
		}
	}
	// Regions may show the same content, but a client that could show it any number of
	// times could ask for page tables of any size.
	left := imageSize
	for _, r := range sorted {
		if r.Size > left {
			return fmt.Errorf("%w: together they are larger than the image, which has %d bytes", ErrBadRegions, imageSize)
		}
		left -= r.Size
	}
	return nil
}

func (r Region) check(imageSize uint64) error {
	switch {
	case r.PageSize != 4096 && r.PageSize != 2<<20:
		return errors.New("the page size must be 4096 or 2097152")
	case r.Size == 0:
		return errors.New("it is empty")
	case r.Address%r.PageSize != 0 || r.Size%r.PageSize != 0:
		return errors.New("address and size must be multiples of the page size")
	case r.Offset%4096 != 0:
		return errors.New("the offset must be a multiple of 4096")
	case r.Address+r.Size < r.Address || r.Address+r.Size > 1<<63:
		return errors.New("it runs past the end of the address space")
	case r.Offset+r.Size < r.Offset || r.Offset+r.Size > imageSize:
		return fmt.Errorf("it shows content behind the end of the image, which has %d bytes", imageSize)
	}
	return nil
}
