package image

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const rootMagic = "FLTROOT\x01"

// A root is the top of an image's index: its packs, and where each block of the index is.
type root struct {
	pages      int64
	blockShift int // log2 of a block's pages
	frameShift int // log2 of the pages of the ranges at which frames were cut
	packs      []packRef
	blocks     []blockRef
}

type packRef struct {
	sum  sum // SHA-256
	size int64
}

func (p packRef) digest() digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(p.sum[:]))
}

// newPackRef gives what a root says of the pack with that descriptor.
func newPackRef(d ocispec.Descriptor) (p packRef, err error) {
	if err := d.Digest.Validate(); err != nil {
		return p, err
	}
	if d.Digest.Algorithm() != digest.SHA256 {
		return p, fmt.Errorf("digest %s is not a sha256", d.Digest)
	}
	p.size = d.Size
	_, err = hex.Decode(p.sum[:], []byte(d.Digest.Encoded()))
	return p, err
}

// A blockRef places an index block in a pack. Length 0: every page of the block is zero.
type blockRef struct {
	pack, offset, length uint32
	sum                  sum // BLAKE3
}

// blockPages is how many pages block i has: the last may be short.
func (r *root) blockPages(i int64) int {
	return int(min(int64(1)<<r.blockShift, r.pages-i<<r.blockShift))
}

func (r *root) blockCount() int64 {
	return (r.pages + int64(1)<<r.blockShift - 1) >> r.blockShift
}

func (r *root) append(b []byte) []byte {
	b = append(b, rootMagic...)
	b = binary.AppendUvarint(b, uint64(r.pages))
	b = binary.AppendUvarint(b, uint64(r.blockShift))
	b = binary.AppendUvarint(b, uint64(r.frameShift))
	b = binary.AppendUvarint(b, uint64(len(r.packs)))
	for _, p := range r.packs {
		b = append(b, p.sum[:]...)
	}
	for _, p := range r.packs {
		b = binary.AppendUvarint(b, uint64(p.size))
	}
	var stored []blockRef
	for _, e := range r.blocks {
		b = binary.AppendUvarint(b, uint64(e.length))
		if e.length > 0 {
			stored = append(stored, e)
		}
	}
	for _, e := range stored {
		b = binary.AppendUvarint(b, uint64(e.pack))
	}
	for _, e := range stored {
		b = binary.AppendUvarint(b, uint64(e.offset))
	}
	for _, e := range stored {
		b = append(b, e.sum[:]...)
	}
	return b
}

func parseRoot(b []byte) (*root, error) {
	d := &decoder{b: b}
	d.magic(rootMagic)
	r := &root{
		pages:      int64(d.uvarint(1, MaxSize/PageSize, "pages")),
		blockShift: int(d.uvarint(minBlockShift, maxBlockShift, "block shift")),
		frameShift: int(d.uvarint(0, maxFrameShift, "frame shift")),
	}
	if r.frameShift > r.blockShift {
		d.fail("frame shift %d is above block shift %d", r.frameShift, r.blockShift)
	}
	r.parsePacks(d)
	r.parseBlocks(d)
	if err := d.end(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *root) parsePacks(d *decoder) {
	r.packs = make([]packRef, d.count(maxPacks, 33, "number of packs"))
	seen := make(map[sum]bool, len(r.packs))
	for i := range r.packs {
		p := &r.packs[i]
		p.sum = d.sum("pack digest")
		if seen[p.sum] {
			d.fail("pack %d is there twice", i)
			return
		}
		seen[p.sum] = true
	}
	for i := range r.packs {
		r.packs[i].size = int64(d.uvarint(1, MaxPackSize, "pack size"))
	}
}

func (r *root) parseBlocks(d *decoder) {
	n := r.blockCount()
	if d.err == nil && (n > maxBlocks || n > int64(len(d.b))) {
		d.fail("%d blocks, more than there may be or is room for", n)
	}
	if d.err != nil {
		return
	}
	r.blocks = make([]blockRef, n)
	for i := range r.blocks {
		r.blocks[i].length = uint32(d.uvarint(0, maxBlockSize, "block length"))
	}
	r.eachStored(func(e *blockRef) {
		e.pack = uint32(d.uvarint(0, maxPacks, "block pack"))
		if int(e.pack) >= len(r.packs) {
			d.fail("block in pack %d of %d", e.pack, len(r.packs))
		}
	})
	r.eachStored(func(e *blockRef) {
		e.offset = uint32(d.uvarint(0, MaxPackSize, "block offset"))
		if d.err == nil && int64(e.offset)+int64(e.length) > r.packs[e.pack].size {
			d.fail("block of %d bytes at %d is outside its pack", e.length, e.offset)
		}
	})
	r.eachStored(func(e *blockRef) { e.sum = d.sum("block digest") })
}

func (r *root) eachStored(f func(*blockRef)) {
	for i := range r.blocks {
		if r.blocks[i].length > 0 {
			f(&r.blocks[i])
		}
	}
}
