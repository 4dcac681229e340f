package handofftest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"faultline/handoff"
	"faultline/uffd"
)

// memory is the client's registered memory and what must be in it.
type memory struct {
	pageSize uint64
	regions  []mapping
	pages    uint64
	// fd is kept, as Firecracker keeps it: without a server faults then wait
	// rather than see zeros.
	fd        *uffd.FD
	reference []byte // the mapped file, or nil for zeros
	zeros     []byte // a page of them
	state     []pageState
	writes    atomic.Uint64 // counted, so that every write is different
}

// A mapping is one region. Its bytes may be missing: whoever reads them blocks.
type mapping struct {
	handoff.Region
	bytes []byte
	first uint64 // number of its first page
}

// pageState is what has been done to a page.
type pageState struct {
	touched   atomic.Bool
	ballooned atomic.Bool
	written   atomic.Uint64 // the word at writeOffset, or 0
}

// start maps and registers the memory and sends the handshake.
func (p *process) start(c Config) ([]handoff.Region, error) {
	m, err := newMemory(c)
	if err != nil {
		return nil, err
	}
	p.memory = m
	regions := make([]handoff.Region, 0, len(m.regions))
	for _, r := range m.regions {
		regions = append(regions, r.Region)
	}
	return regions, handshake(c, regions, m.fd)
}

func newMemory(c Config) (*memory, error) {
	m := &memory{pageSize: c.PageSize, zeros: make([]byte, c.PageSize)}
	if err := m.mapReference(c.Reference); err != nil {
		return nil, err
	}
	if err := m.mapRegions(c); err != nil {
		return nil, err
	}
	var err error
	if m.fd, err = uffd.Open(uffd.Options{Features: c.Features}); err != nil {
		return nil, err
	}
	for _, r := range m.regions {
		if _, err := m.fd.Register(uffd.Range{Start: r.Address, Len: r.Size}, uffd.ModeMissing); err != nil {
			return nil, err
		}
		if end := r.Offset + r.Size; m.reference != nil && uint64(len(m.reference)) < end {
			return nil, fmt.Errorf("reference %s has %d bytes, but a region shows it up to %d", c.Reference, len(m.reference), end)
		}
	}
	m.state = make([]pageState, m.pages)
	return m, nil
}

func (m *memory) mapReference(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	m.reference, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("map the reference %s, %d bytes: %w", path, info.Size(), err)
	}
	return nil
}

// mapRegions reserves address space for all regions and gaps, and then maps the
// regions into it.
func (m *memory) mapRegions(c Config) error {
	span := c.PageSize
	for _, r := range c.Regions {
		span += r.Gap + r.Size
	}
	base, err := unix.MmapPtr(-1, 0, nil, uintptr(span), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("reserve %d bytes of address space: %w", span, err)
	}
	at := (c.PageSize - uint64(uintptr(base))%c.PageSize) % c.PageSize
	for _, r := range c.Regions {
		at += r.Gap
		bytes, err := mapAt(unsafe.Add(base, at), r.Size, c.PageSize)
		if err != nil {
			return err
		}
		m.regions = append(m.regions, mapping{
			Region: handoff.Region{Address: uint64(uintptr(base)) + at, Size: r.Size, Offset: r.Offset, PageSize: c.PageSize},
			bytes:  bytes,
			first:  m.pages,
		})
		m.pages += r.Size / c.PageSize
		at += r.Size
	}
	return nil
}

func mapAt(at unsafe.Pointer, size, pageSize uint64) ([]byte, error) {
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED
	if pageSize == HugePage {
		flags |= unix.MAP_HUGETLB | unix.MAP_HUGE_2MB
	} else {
		flags |= unix.MAP_NORESERVE
	}
	p, err := unix.MmapPtr(-1, 0, at, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, flags)
	if errors.Is(err, unix.ENOMEM) && pageSize == HugePage {
		return nil, fmt.Errorf("map %d huge pages of 2 MiB: %w: %w; raise vm.nr_hugepages", size/pageSize, ErrNoHugePages, err)
	}
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	return unsafe.Slice((*byte)(p), size), nil
}

// page is the bytes of a page, which may be missing, and what is under them.
func (m *memory) page(n uint64) (page []byte, r *mapping, offset uint64) {
	for i := range m.regions {
		r = &m.regions[i]
		if offset = (n - r.first) * m.pageSize; n >= r.first && offset < r.Size {
			return r.bytes[offset : offset+m.pageSize : offset+m.pageSize], r, offset
		}
	}
	return nil, nil, 0
}

// image is the content of a page according to the reference.
func (m *memory) image(n uint64) []byte {
	_, r, offset := m.page(n)
	if m.reference == nil {
		return m.zeros
	}
	return m.reference[r.Offset+offset:][:m.pageSize]
}

// writeOffset is where in a page its word is written: never at its start, which
// guests read, and not everywhere the same.
func writeOffset(n uint64) uint64 { return 8 + n*56%4072&^7 }

// nextWord is a word that was never written before and is never zero.
func (m *memory) nextWord(n uint64) [8]byte {
	var word [8]byte
	binary.LittleEndian.PutUint32(word[:], uint32(m.writes.Add(1)))
	binary.LittleEndian.PutUint32(word[4:], 0xFA000000|uint32(n))
	return word
}

// checkPages refuses numbers of pages that do not exist.
func (m *memory) checkPages(pages []uint64) error {
	for _, n := range pages {
		if n >= m.pages {
			return fmt.Errorf("there is no page %d: the client has %d", n, m.pages)
		}
	}
	return nil
}
