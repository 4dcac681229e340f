package image

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Magic numbers of the skippable frames that hold what is no frame of pages.
const (
	padMagic   = 0x184D2A5A
	indexMagic = 0x184D2A5B
	skipHeader = 8
)

// maxPendingIndex is how many bytes of index blocks wait in memory for their pack's end, before the pack is closed early.
const maxPendingIndex = 16 << 20

// A writer lays encoded chunks out in packs, and builds the index. Where an index block ends up is known when its pack is
// closed: its blockRef is filled in then.
type writer struct {
	stage Stage
	o     *Options
	root  root
	packs []ocispec.Descriptor // closed

	pack    BlobWriter // open, or nil
	buf     *bufio.Writer
	pos     int64 // in the open pack, bytes
	pending []pendingBlock
	waiting int64 // bytes of pending, with headers

	block  block // being built
	others int   // closed packs that the block may have frames in
}

type pendingBlock struct {
	index int // in root.blocks
	bytes []byte
}

func newWriter(stage Stage, o *Options) *writer {
	w := &writer{stage: stage, o: o, buf: bufio.NewWriterSize(nil, 1<<20)}
	w.root.blockShift = o.blockShift
	for PageSize<<w.root.frameShift < o.FrameSize {
		w.root.frameShift++
	}
	return w
}

// add appends a chunk to the image.
func (w *writer) add(ctx context.Context, c *chunk) error {
	pages := int(c.size / PageSize)
	if c.hole || c.frame.pages == 0 {
		return w.addZeros(c.size / PageSize)
	}
	if err := w.addFrame(ctx, c); err != nil {
		return err
	}
	kind, start := uint16(len(w.block.frames)), w.block.pages
	for i, r := range c.runs {
		end := pages
		if i+1 < len(c.runs) {
			end = int(c.runs[i+1].start)
		}
		r.start += uint16(start)
		if r.kind != 0 {
			r.kind = kind
		}
		w.addRun(r, start+end)
	}
	return w.endBlock()
}

func (w *writer) addZeros(pages int64) error {
	for pages > 0 {
		room := 1<<w.root.blockShift - w.block.pages
		n := int(min(pages, int64(room)))
		w.addRun(run{start: uint16(w.block.pages)}, w.block.pages+n)
		if err := w.endBlock(); err != nil {
			return err
		}
		pages -= int64(n)
	}
	return nil
}

// addRun appends a run that ends before page end, or makes the last run longer.
func (w *writer) addRun(r run, end int) {
	b := &w.block
	if n := len(b.runs); n == 0 || r.kind != 0 || b.runs[n-1].kind != 0 {
		b.runs = append(b.runs, r)
	}
	b.pages = end
}

// endBlock finishes the block if it is full.
func (w *writer) endBlock() error {
	if w.block.pages < 1<<w.root.blockShift {
		return nil
	}
	return w.finishBlock()
}

func (w *writer) finishBlock() error {
	b := &w.block
	if len(w.root.blocks) == maxBlocks {
		return badInput("more than %d index blocks", maxBlocks)
	}
	if len(b.frames) > 0 {
		own := uint32(len(w.root.packs)) // the open pack's number
		p := b.append(nil, own, w.root.packs)
		w.pending = append(w.pending, pendingBlock{len(w.root.blocks), p})
		w.waiting += int64(skipHeader + len(p))
	}
	w.root.blocks = append(w.root.blocks, blockRef{})
	w.root.pages += int64(b.pages)
	*b = block{frames: b.frames[:0], runs: b.runs[:0]}
	w.others = 0
	return nil
}

// addFrame writes the chunk's frame, into a new pack if the open one is full.
func (w *writer) addFrame(ctx context.Context, c *chunk) error {
	pad := w.padding(c)
	if w.pack != nil && (w.pos+pad+int64(len(c.stored))+w.indexBound(c) > w.o.PackSize || w.waiting > maxPendingIndex) {
		if err := w.closePack(ctx); err != nil {
			return err
		}
		pad = 0
	}
	if err := w.openPack(ctx); err != nil {
		return err
	}
	if pad > 0 {
		if err := w.writeSkippable(padMagic, make([]byte, pad-skipHeader)); err != nil {
			return err
		}
	}
	f := c.frame
	f.pack, f.offset = uint32(len(w.root.packs)), uint32(w.pos)
	w.block.frames = append(w.block.frames, f)
	return w.write(c.stored)
}

// padding is how many bytes put the chunk's frame at a multiple of the page size, if it is raw.
func (w *writer) padding(c *chunk) int64 {
	pad := -w.pos & (PageSize - 1)
	if c.frame.codec != codecRaw || pad == 0 {
		return 0
	}
	if pad < skipHeader {
		pad += PageSize
	}
	return pad
}

// indexBound is the most that the index blocks will take which the open pack has to hold once c is added.
func (w *writer) indexBound(c *chunk) int64 {
	const head, perPack, perFrame, perRun = 64, 32, 64, 9
	return w.waiting + skipHeader + head + perPack*int64(w.others+1) +
		perFrame*int64(len(w.block.frames)+1) + perRun*int64(len(w.block.runs)+len(c.runs)+1)
}

func (w *writer) openPack(ctx context.Context) (err error) {
	if w.pack != nil {
		return nil
	}
	if len(w.root.packs) == maxPacks {
		return badInput("more than %d packs", maxPacks)
	}
	if w.pack, err = w.stage.Create(ctx); err != nil {
		return err
	}
	w.buf.Reset(w.pack)
	w.pos = 0
	return nil
}

// closePack ends the open pack with the index blocks that wait for it.
func (w *writer) closePack(ctx context.Context) error {
	own := uint32(len(w.root.packs))
	for _, b := range w.pending {
		if err := w.writeSkippable(indexMagic, b.bytes); err != nil {
			return err
		}
		length := uint32(len(b.bytes))
		w.root.blocks[b.index] = blockRef{offset: uint32(w.pos) - length, length: length, sum: blake(b.bytes)}
	}
	if err := w.buf.Flush(); err != nil {
		return err
	}
	d, err := w.pack.Commit(ctx, MediaTypePack)
	if err != nil {
		return err
	}
	ref, err := newPackRef(d)
	if err != nil {
		return fmt.Errorf("the store's descriptor of a pack: %w", err)
	}
	if ref.size != w.pos {
		return fmt.Errorf("the store took %d bytes of a pack of %d", ref.size, w.pos)
	}
	w.placePack(own, ref, d)
	w.pack, w.pending, w.waiting = nil, nil, 0
	return nil
}

// placePack enters the pack that was open as number own into the table. Repetitive content can give one pack twice, byte
// for byte: the table has it once.
func (w *writer) placePack(own uint32, ref packRef, d ocispec.Descriptor) {
	number := slices.Index(w.root.packs, ref)
	if number < 0 {
		number = len(w.root.packs)
		w.root.packs = append(w.root.packs, ref)
		w.packs = append(w.packs, d)
	}
	for _, b := range w.pending {
		w.root.blocks[b.index].pack = uint32(number)
	}
	for i := range w.block.frames {
		if f := &w.block.frames[i]; f.pack == own {
			f.pack = uint32(number)
		}
	}
	if len(w.block.frames) > 0 {
		w.others++
	}
}

func (w *writer) writeSkippable(magic uint32, p []byte) error {
	var head [skipHeader]byte
	binary.LittleEndian.PutUint32(head[:4], magic)
	binary.LittleEndian.PutUint32(head[4:], uint32(len(p)))
	if err := w.write(head[:]); err != nil {
		return err
	}
	return w.write(p)
}

func (w *writer) write(p []byte) error {
	n, err := w.buf.Write(p)
	w.pos += int64(n)
	return err
}

// finish ends the last block and the last pack.
func (w *writer) finish(ctx context.Context) error {
	if w.block.pages > 0 {
		if err := w.finishBlock(); err != nil {
			return err
		}
	}
	if w.pack == nil {
		return nil
	}
	return w.closePack(ctx)
}

// abort throws the open pack away.
func (w *writer) abort() {
	if w.pack != nil {
		w.pack.Abort()
	}
}
