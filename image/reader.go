package image

import (
	"context"
	"errors"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"faultline/internal/cpu"
)

// A Reader serves the content of an image. Its methods may be called by many goroutines at once.
//
// It holds its packs open and keeps the index blocks it has used in memory, up to a limit. It keeps no content: each read
// fetches from the store, verifies and decodes.
type Reader struct {
	blobs    Blobs
	manifest *manifest
	config   Config
	root     *root
	packs    []Blob
	bySum    map[sum]uint32
	blocks   []lazy[block] // of the index; not used where the root says zero
	cache    cache[block]
	closed   atomic.Bool
}

// blockCacheSize bounds the index blocks in memory, in bytes: enough for all of some hundred gigabytes of image.
const blockCacheSize = 128 << 20

// Open opens the image with that manifest. It reads and verifies manifest, config and index root, and opens every pack,
// so that a pack that is missing shows now. The Reader must be closed. It does not keep ctx.
//
// Errors wrap [ErrCorrupt], [ErrUnsupported] or the store's.
func Open(ctx context.Context, blobs Blobs, manifest ocispec.Descriptor) (*Reader, error) {
	r := &Reader{blobs: blobs, cache: cache[block]{limit: blockCacheSize}}
	if err := r.readIndex(ctx, manifest); err != nil {
		return nil, err
	}
	if err := r.openPacks(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Reader) readIndex(ctx context.Context, d ocispec.Descriptor) error {
	b, err := readWhole(ctx, r.blobs, "manifest", d, maxManifestSize)
	if err != nil {
		return err
	}
	if r.manifest, err = parseManifest(b); err != nil {
		return partError("manifest", d, err)
	}
	if b, err = readWhole(ctx, r.blobs, "config", r.manifest.config, maxConfigSize); err != nil {
		return err
	}
	if r.config, err = parseConfig(b); err != nil {
		return partError("config", r.manifest.config, err)
	}
	if b, err = readWhole(ctx, r.blobs, "index root", r.manifest.root, maxRootSize); err != nil {
		return err
	}
	if r.root, err = parseRoot(b); err != nil {
		return partError("index root", r.manifest.root, err)
	}
	if r.root.pages != r.config.Size/PageSize {
		return partError("index root", r.manifest.root, corrupt("%d pages in an image of %d bytes", r.root.pages, r.config.Size))
	}
	if err := r.manifest.checkPacks(r.root); err != nil {
		return partError("manifest", d, err)
	}
	return nil
}

func partError(part string, d ocispec.Descriptor, err error) error {
	return &ReadError{Part: part, Digest: d.Digest, Length: d.Size, Err: err}
}

func (r *Reader) openPacks(ctx context.Context) error {
	r.bySum = make(map[sum]uint32, len(r.root.packs))
	r.blocks = make([]lazy[block], len(r.root.blocks))
	for i, d := range r.manifest.packs {
		blob, err := openBlob(ctx, r.blobs, d)
		if err != nil {
			return partError("pack", d, err)
		}
		r.packs = append(r.packs, blob)
		r.bySum[r.root.packs[i].sum] = uint32(i)
	}
	return nil
}

// Close closes the packs. Calls under way may fail, later ones fail with [ErrClosed].
func (r *Reader) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	var errs []error
	for _, p := range r.packs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// Size is the image's length in bytes.
func (r *Reader) Size() int64 { return r.config.Size }

// FrameSize is how many bytes of the image a frame was cut from, at multiples of itself: reading a whole aligned range
// of that size costs the fewest reads and decodes. It is a power of two and at least [PageSize].
func (r *Reader) FrameSize() int64 { return PageSize << r.root.frameShift }

// Config gives the image's configuration. It is not to be changed.
func (r *Reader) Config() Config { return r.config }

// Segments gives the image's named ranges. They are not to be changed.
func (r *Reader) Segments() []Segment { return r.config.Segments }

// Manifest gives the image's manifest. It is not to be changed.
func (r *Reader) Manifest() ocispec.Manifest { return r.manifest.raw }

// Extent says what the image has at off: n bytes from there are all zero, or lie in one frame and so are best read at
// once. It never reaches over a block of the index (32 MiB); the next extent may be of the same kind. At the image's end
// it fails with [ErrBadInput].
func (r *Reader) Extent(ctx context.Context, off int64) (n int64, zero bool, err error) {
	e, err := r.extent(ctx, off)
	return e.length, e.frame == nil, err
}

// An extent is the rest of a run from some offset on.
type extent struct {
	length int64  // bytes
	frame  *frame // nil: zeros
	skip   int    // bytes of the frame before the extent
}

func (r *Reader) extent(ctx context.Context, off int64) (extent, error) {
	if r.closed.Load() {
		return extent{}, ErrClosed
	}
	if off < 0 || off >= r.config.Size {
		return extent{}, badInput("offset %d in an image of %d bytes", off, r.config.Size)
	}
	shift := r.root.blockShift
	page := off / PageSize
	i := page >> shift
	in := int(page - i<<shift)
	blockStart := (i << shift) * PageSize
	if r.root.blocks[i].length == 0 {
		return extent{length: blockStart + int64(r.root.blockPages(i))*PageSize - off}, nil
	}
	b, err := r.block(ctx, i)
	if err != nil {
		return extent{}, err
	}
	u, end := b.find(in)
	e := extent{length: blockStart + int64(end)*PageSize - off}
	if u.kind != 0 {
		e.frame = &b.frames[u.kind-1]
		e.skip = int(u.first)*PageSize + int(off-blockStart) - int(u.start)*PageSize
	}
	return e, nil
}

// block gives the index block i, loading it if it must.
func (r *Reader) block(ctx context.Context, i int64) (*block, error) {
	cell := &r.blocks[i]
	if b := cell.value.Load(); b != nil {
		return b, nil
	}
	return r.loadBlock(ctx, cell, i)
}

func (r *Reader) loadBlock(ctx context.Context, cell *lazy[block], i int64) (*block, error) {
	loaded := false
	b, err := cell.get(ctx, func(ctx context.Context) (*block, error) {
		b, err := r.readBlock(ctx, i)
		loaded = err == nil
		return b, err
	})
	if loaded {
		r.cache.add(cell, b.memory())
	}
	return b, err
}

func (r *Reader) readBlock(ctx context.Context, i int64) (*block, error) {
	ref := r.root.blocks[i]
	b, err := fetchBlock(ctx, r.packs[ref.pack], ref, r.root.blockPages(i), packTable{own: ref.pack, packs: r.root.packs, bySum: r.bySum})
	if err != nil {
		return nil, r.packError("index block", ref.pack, ref.offset, ref.length, err)
	}
	return b, nil
}

// fetchBlock reads, verifies and parses an index block.
func fetchBlock(ctx context.Context, pack Blob, ref blockRef, pages int, t packTable) (*block, error) {
	buf := buffers.get(int(ref.length))
	defer buffers.put(buf)
	p := (*buf)[:ref.length]
	if err := pack.ReadAt(ctx, p, int64(ref.offset)); err != nil {
		return nil, shortIsCorrupt(err)
	}
	if err := cpu.Acquire(ctx); err != nil {
		return nil, err
	}
	defer cpu.Release(ctx)
	if blake(p) != ref.sum {
		return nil, errSum
	}
	return parseBlock(p, pages, t)
}

func (r *Reader) packError(part string, pack, offset, length uint32, err error) error {
	if r.closed.Load() {
		return ErrClosed
	}
	return &ReadError{Part: part, Digest: r.root.packs[pack].digest(), Offset: int64(offset), Length: int64(length), Err: err}
}

// ReadAt fills p with the content at off, or fails; after an error p may hold anything. p may be any memory, also outside
// the Go heap, and must not be changed by others meanwhile. It need not be aligned, but a read of a part of a frame costs
// as much as one of the whole frame, and a copy.
//
// Everything is verified each time it is read. Errors wrap [ErrCorrupt], [ErrBadInput], [ErrClosed], the store's or
// ctx's. A read of whole frames allocates nothing once the index blocks are loaded.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off < 0 || off > r.config.Size || int64(len(p)) > r.config.Size-off {
		return badInput("%d bytes at %d in an image of %d bytes", len(p), off, r.config.Size)
	}
	var held heldFrame
	defer held.release()
	for len(p) > 0 {
		e, err := r.extent(ctx, off)
		if err != nil {
			return err
		}
		n := int(min(e.length, int64(len(p))))
		if err := r.readExtent(ctx, &held, e, p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (r *Reader) readExtent(ctx context.Context, held *heldFrame, e extent, p []byte) error {
	switch {
	case e.frame == nil:
		clear(p)
		return nil
	case held.frame == e.frame:
	case len(p) == e.frame.size():
		return r.readFrame(ctx, e.frame, p)
	default:
		if err := held.fill(ctx, r, e.frame); err != nil {
			return err
		}
	}
	copy(p, held.content()[e.skip:])
	return nil
}

func (r *Reader) readFrame(ctx context.Context, f *frame, dst []byte) error {
	if err := f.read(ctx, r.packs[f.pack], dst); err != nil {
		return r.packError("frame", f.pack, f.offset, f.stored, err)
	}
	return nil
}

// A heldFrame is the decoded frame of which a read wants several parts, as where zero pages lie between them.
type heldFrame struct {
	frame *frame
	buf   *[]byte
}

func (h *heldFrame) fill(ctx context.Context, r *Reader, f *frame) error {
	h.release()
	h.buf = buffers.get(f.size())
	if err := r.readFrame(ctx, f, (*h.buf)[:f.size()]); err != nil {
		return err
	}
	h.frame = f
	return nil
}

func (h *heldFrame) content() []byte { return (*h.buf)[:h.frame.size()] }

func (h *heldFrame) release() {
	if h.buf != nil {
		buffers.put(h.buf)
	}
	*h = heldFrame{}
}
