package image

import (
	"bytes"
	"math/rand/v2"
	"os/exec"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// storedPages is content without its zero pages.
func storedPages(content []byte) (p []byte) {
	for page := range slices.Chunk(content, PageSize) {
		if !allZero(page) {
			p = append(p, page...)
		}
	}
	return p
}

// TestPackIsZstd decodes packs as what they are to any zstd tool: index blocks are skipped, and the pages come out.
func TestPackIsZstd(t *testing.T) {
	rnd := rand.New(rand.NewPCG(31, 32))
	var content []byte
	for range 12 {
		content = append(content, genRow(rnd, "text", 10)...)
		content = append(content, genRow(rnd, "alternating", 10)...)
	}
	m, d := packBytes(t, content, Options{FrameSize: 8 * PageSize, PackSize: 120 << 10, blockShift: 5})
	r := openImage(t, m, d)
	if len(r.packs) < 2 {
		t.Fatalf("%d packs, want several", len(r.packs))
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	binary, _ := exec.LookPath("zstd")
	var pages, byBinary []byte
	for _, p := range r.manifest.packs {
		pack := m.blobs[p.Digest]
		if pages, err = dec.DecodeAll(pack, pages); err != nil {
			t.Fatal(err)
		}
		if binary != "" {
			cmd := exec.Command(binary, "-dc")
			cmd.Stdin = bytes.NewReader(pack)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			byBinary = append(byBinary, out...)
		}
	}
	want := storedPages(content)
	if !bytes.Equal(pages, want) {
		t.Errorf("decoded %d bytes, which are not the %d bytes of stored pages", len(pages), len(want))
	}
	if binary != "" && !bytes.Equal(byBinary, want) {
		t.Errorf("zstd -d gave %d bytes, which are not the %d bytes of stored pages", len(byBinary), len(want))
	}
}

// TestRawFramesAreAligned mixes frames that shrink with frames that do not.
func TestRawFramesAreAligned(t *testing.T) {
	rnd := rand.New(rand.NewPCG(33, 34))
	var content []byte
	for range 10 {
		content = append(content, genRow(rnd, "text", 8)...)
		content = append(content, genRow(rnd, "random", 8)...)
	}
	m, d := packBytes(t, content, Options{FrameSize: 8 * PageSize})
	r := openImage(t, m, d)
	b, err := r.block(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	raw := 0
	for _, f := range b.frames {
		if f.codec == codecRaw {
			raw++
			if f.offset%PageSize != 0 {
				t.Errorf("raw frame at %d", f.offset)
			}
		}
	}
	if raw != 10 || len(b.frames) != 20 {
		t.Errorf("%d of %d frames are raw, want 10 of 20", raw, len(b.frames))
	}
}

// TestDiffImage builds by hand what a later writer will: an image with a new block that points into its parent's pack,
// a block that is its parent's as it was, and a block that is zero now. Its packs stand in another order.
func TestDiffImage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(35, 36))
	content := genRow(rnd, "random", 48)
	m, parent := packBytes(t, content, Options{FrameSize: 4 * PageSize, blockShift: 4})
	p := openImage(t, m, parent)
	old, err := p.block(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	page := genRow(rnd, "random", 1)
	diff := &block{
		pages:  16,
		frames: []frame{{pack: 0, pages: 1, stored: PageSize, sum: blake(page)}, old.frames[0], old.frames[3]},
		// The frames of both packs, in any order; one page twice; zeros over what the parent had.
		runs: []run{{0, 3, 1}, {3, 1, 0}, {4, 0, 0}, {8, 2, 0}, {12, 1, 0}, {13, 2, 2}, {15, 2, 2}},
	}
	diff.frames[1].pack, diff.frames[2].pack = 1, 1
	want := bytes.Join([][]byte{
		content[13*PageSize : 16*PageSize], page, make([]byte, 4*PageSize), content[:4*PageSize], page,
		content[2*PageSize : 4*PageSize], content[2*PageSize : 3*PageSize],
		content[16*PageSize : 32*PageSize], make([]byte, 16*PageSize),
	}, nil)
	parentPack := p.root.packs[0]
	diff.runs[0].first = 1
	encoded := diff.append(nil, 0, []packRef{{}, parentPack})
	own := m.put(MediaTypePack, append(bytes.Clone(page), encoded...))
	ownRef, err := newPackRef(own)
	if err != nil {
		t.Fatal(err)
	}
	inherited := p.root.blocks[1]
	inherited.pack = 1
	child := &manifest{config: p.manifest.config, packs: append(p.manifest.packs[:0:0], own, p.manifest.packs[0])}
	child.root = m.put(MediaTypeIndex, (&root{
		pages: 48, blockShift: 4, frameShift: 2, packs: []packRef{ownRef, parentPack},
		blocks: []blockRef{{offset: PageSize, length: uint32(len(encoded)), sum: blake(encoded)}, inherited, {}},
	}).append(nil))
	b, err := child.encode()
	if err != nil {
		t.Fatal(err)
	}
	r := openImage(t, m, m.put(p.manifest.raw.MediaType, b))
	got := make([]byte, r.Size())
	if err := r.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	for i := range len(got) / PageSize {
		if !bytes.Equal(got[i*PageSize:(i+1)*PageSize], want[i*PageSize:(i+1)*PageSize]) {
			t.Errorf("page %d differs", i)
		}
	}
	if err := r.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
