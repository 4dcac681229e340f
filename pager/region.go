package pager

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// A Region is a range of a client's addresses that shows a range of the source.
// All fields are in bytes; Address and Size are multiples of PageSize.
type Region struct {
	Address  uint64
	Size     uint64
	Offset   uint64
	PageSize uint64
}

// maxBlockPages is bounded by the masks in block.
const maxBlockPages = 64

// region is a Region with the states of its pages.
type region struct {
	Region
	pages []byte // one page a byte
	// perBlock is the number of pages in a block. Blocks are cut where the source
	// offset is a multiple of the block size, so that they match the source's
	// frames; the first one is short by lead pages.
	perBlock, lead int
	// active maps each block to its entry in Core.blocks, or -1.
	active []int32
}

// pageRef names a page of a Core: region number, page number in the region.
type pageRef struct {
	region int32
	page   uint32
}

// newRegions sorts and checks the regions and lays out their blocks.
func newRegions(rs []Region, blockSize uint64) ([]region, error) {
	if len(rs) == 0 {
		return nil, errors.New("no regions")
	}
	sorted := slices.SortedFunc(slices.Values(rs), func(a, b Region) int { return cmp.Compare(a.Address, b.Address) })
	regions := make([]region, len(sorted))
	for i, r := range sorted {
		if r.PageSize == 0 || r.PageSize&(r.PageSize-1) != 0 || r.Size == 0 || r.Address%r.PageSize != 0 || r.Size%r.PageSize != 0 ||
			r.Address+r.Size < r.Address || r.Size/r.PageSize > 1<<31 {
			return nil, fmt.Errorf("region %#x+%#x with pages of %d bytes: empty, misaligned, or too large", r.Address, r.Size, r.PageSize)
		}
		if i > 0 && sorted[i-1].Address+sorted[i-1].Size > r.Address {
			return nil, fmt.Errorf("regions overlap at %#x", r.Address)
		}
		regions[i] = newRegion(r, blockSize)
	}
	return regions, nil
}

func newRegion(r Region, blockSize uint64) region {
	n := int(r.Size / r.PageSize)
	per := min(max(int(blockSize/r.PageSize), 1), maxBlockPages)
	lead := int(r.Offset / r.PageSize % uint64(per))
	blocks := (lead + n + per - 1) / per
	reg := region{Region: r, pages: make([]byte, n), perBlock: per, lead: lead, active: make([]int32, blocks)}
	for i := range reg.active {
		reg.active[i] = -1
	}
	return reg
}

func (r *region) end() uint64 { return r.Address + r.Size }

// blockOf is the number of the block that holds a page.
func (r *region) blockOf(p uint32) int { return (int(p) + r.lead) / r.perBlock }

// blockPages is the block's first page and how many it has.
func (r *region) blockPages(b int) (first uint32, n int) {
	lo := max(b*r.perBlock-r.lead, 0)
	hi := min((b+1)*r.perBlock-r.lead, len(r.pages))
	return uint32(lo), hi - lo
}

// address is where a page lies in the client.
func (r *region) address(p uint32) uint64 { return r.Address + uint64(p)*r.PageSize }

// find gives the region that holds an address, or -1.
func (c *Core) find(addr uint64) int {
	i := sort.Search(len(c.regions), func(i int) bool { return c.regions[i].end() > addr })
	if i < len(c.regions) && c.regions[i].Address <= addr {
		return i
	}
	return -1
}

func (c *Core) state(ref pageRef) page       { return page(c.regions[ref.region].pages[ref.page]) }
func (c *Core) setState(ref pageRef, p page) { c.regions[ref.region].pages[ref.page] = byte(p) }
