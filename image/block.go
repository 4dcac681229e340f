package image

import (
	"encoding/binary"
	"sort"
)

const blockMagic = "FLTBLCK\x01"

// A block is one block of the index: what each of its pages is.
type block struct {
	frames []frame
	runs   []run // in page order, without gaps
	pages  int
}

// A frame is where some pages' content is stored.
type frame struct {
	pack      uint32 // in the root's table
	offset    uint32 // in the pack
	stored    uint32 // bytes
	pages     uint16
	codec     byte
	transform byte
	sum       sum // BLAKE3 of the stored bytes
}

// size is the decoded length in bytes.
func (f *frame) size() int { return int(f.pages) * PageSize }

// A run is a row of pages that are all zero or follow each other in one frame. It ends where the next run starts.
type run struct {
	start uint16 // page in the block
	kind  uint16 // 0: zero; n: in frame n-1
	first uint16 // page in the frame
}

// find gives the run that page is in, and the page at which it ends.
func (b *block) find(page int) (r run, end int) {
	i := sort.Search(len(b.runs), func(i int) bool { return int(b.runs[i].start) > page })
	end = b.pages
	if i < len(b.runs) {
		end = int(b.runs[i].start)
	}
	return b.runs[i-1], end
}

// memory is about what b takes, in bytes.
func (b *block) memory() int { return 64 + 48*len(b.frames) + 6*len(b.runs) }

// A packTable is how an index block's frames name packs: by number, 0 for the pack that the block itself is in. Other
// packs are named by digest in the block, so that a block means the same in every image that uses it.
type packTable struct {
	own    uint32         // the block's pack, in the root's table
	packs  []packRef      // the root's table
	bySum  map[sum]uint32 // and its inverse
	others []uint32       // the block's table, as places in the root's
}

func (t *packTable) parseOthers(d *decoder, limit uint64) {
	t.others = make([]uint32, d.count(limit, 32, "number of other packs"))
	for i := range t.others {
		n, ok := t.bySum[d.sum("pack digest")]
		if !ok {
			d.fail("other pack %d is not in the root's table", i)
			return
		}
		t.others[i] = n
	}
}

func (t *packTable) parseNumber(d *decoder) uint32 {
	n := d.uvarint(0, uint64(len(t.others)), "frame pack")
	if n == 0 {
		return t.own
	}
	return t.others[n-1]
}

// parseBlock parses a block of the given number of pages, whose digest has been checked.
func parseBlock(p []byte, pages int, t packTable) (*block, error) {
	d := &decoder{b: p}
	d.magic(blockMagic)
	d.uvarint(uint64(pages), uint64(pages), "pages")
	t.parseOthers(d, uint64(pages))
	b := &block{pages: pages}
	b.parseFrames(d, &t)
	b.parseRuns(d)
	if err := d.end(); err != nil {
		return nil, err
	}
	return b, nil
}

// frameRow is the least number of bytes that a frame takes in a block, runRow a run.
const (
	frameRow = 4 + 2 + 32
	runRow   = 2
)

func (b *block) parseFrames(d *decoder, t *packTable) {
	b.frames = make([]frame, d.count(uint64(b.pages), frameRow, "number of frames"))
	for i := range b.frames {
		b.frames[i].pack = t.parseNumber(d)
	}
	for i := range b.frames {
		b.frames[i].offset = uint32(d.uvarint(0, MaxPackSize, "frame offset"))
	}
	for i := range b.frames {
		b.frames[i].stored = uint32(d.uvarint(1, MaxFrameSize, "stored length"))
	}
	for i := range b.frames {
		b.frames[i].pages = uint16(d.uvarint(1, maxFramePages, "frame pages"))
	}
	for i := range b.frames {
		b.frames[i].codec = d.byte("codec")
	}
	for i := range b.frames {
		b.frames[i].transform = d.byte("transform")
	}
	for i := range b.frames {
		f := &b.frames[i]
		f.sum = d.sum("frame digest")
		if d.err == nil {
			d.err = f.check(t.packs[f.pack].size)
		}
	}
}

func (b *block) parseRuns(d *decoder) {
	b.runs = make([]run, d.count(uint64(b.pages), runRow, "number of runs"))
	start := 0
	for i := range b.runs {
		b.runs[i].start = uint16(start)
		start += int(d.uvarint(1, uint64(b.pages-start), "run length"))
	}
	if start != b.pages {
		d.fail("runs cover %d of %d pages", start, b.pages)
	}
	for i := range b.runs {
		b.runs[i].kind = uint16(d.uvarint(0, uint64(len(b.frames)), "run kind"))
	}
	for i := range b.runs {
		b.parseFirst(d, i)
	}
}

func (b *block) parseFirst(d *decoder, i int) {
	r := &b.runs[i]
	if r.kind == 0 || d.err != nil {
		return
	}
	end := b.pages
	if i+1 < len(b.runs) {
		end = int(b.runs[i+1].start)
	}
	length, pages := end-int(r.start), int(b.frames[r.kind-1].pages)
	if length > pages {
		d.fail("run of %d pages in a frame of %d", length, pages)
		return
	}
	r.first = uint16(d.uvarint(0, uint64(pages-length), "first page"))
}

// append encodes b for the pack own. The others are the packs besides it that frames may be in, with the digests to
// name them by.
func (b *block) append(p []byte, own uint32, packs []packRef) []byte {
	numbers := map[uint32]uint64{own: 0}
	var others []uint32
	for i := range b.frames {
		n := b.frames[i].pack
		if _, ok := numbers[n]; !ok {
			others = append(others, n)
			numbers[n] = uint64(len(others))
		}
	}
	p = append(p, blockMagic...)
	p = binary.AppendUvarint(p, uint64(b.pages))
	p = binary.AppendUvarint(p, uint64(len(others)))
	for _, n := range others {
		p = append(p, packs[n].sum[:]...)
	}
	p = b.appendFrames(p, numbers)
	return b.appendRuns(p)
}

func (b *block) appendFrames(p []byte, numbers map[uint32]uint64) []byte {
	column := func(field func(*frame) uint64) {
		for i := range b.frames {
			p = binary.AppendUvarint(p, field(&b.frames[i]))
		}
	}
	p = binary.AppendUvarint(p, uint64(len(b.frames)))
	column(func(f *frame) uint64 { return numbers[f.pack] })
	column(func(f *frame) uint64 { return uint64(f.offset) })
	column(func(f *frame) uint64 { return uint64(f.stored) })
	column(func(f *frame) uint64 { return uint64(f.pages) })
	for i := range b.frames {
		p = append(p, b.frames[i].codec)
	}
	for i := range b.frames {
		p = append(p, b.frames[i].transform)
	}
	for i := range b.frames {
		p = append(p, b.frames[i].sum[:]...)
	}
	return p
}

func (b *block) appendRuns(p []byte) []byte {
	p = binary.AppendUvarint(p, uint64(len(b.runs)))
	for i, r := range b.runs {
		end := b.pages
		if i+1 < len(b.runs) {
			end = int(b.runs[i+1].start)
		}
		p = binary.AppendUvarint(p, uint64(end-int(r.start)))
	}
	for _, r := range b.runs {
		p = binary.AppendUvarint(p, uint64(r.kind))
	}
	for _, r := range b.runs {
		if r.kind != 0 {
			p = binary.AppendUvarint(p, uint64(r.first))
		}
	}
	return p
}
