package image

import (
	"context"
	"fmt"
	"math/bits"
	"sync"

	"github.com/klauspost/compress/zstd"

	"faultline/internal/cpu"
)

// A Codec is how frames are stored.
type Codec string

const (
	Zstd Codec = "zstd"
	Raw  Codec = "raw"
)

// The codec byte of a frame.
const (
	codecRaw  = 0
	codecZstd = 1
)

var codecNames = [...]Codec{codecRaw: Raw, codecZstd: Zstd}

// check says whether f, as an index block gives it, is possible in a pack of that size.
func (f *frame) check(packSize int64) error {
	switch {
	case int64(f.offset)+int64(f.stored) > packSize:
		return corrupt("frame of %d bytes at %d is outside its pack", f.stored, f.offset)
	case f.transform != 0:
		return fmt.Errorf("%w: frame transform %d", ErrUnsupported, f.transform)
	case f.codec == codecRaw && int(f.stored) != f.size():
		return corrupt("raw frame of %d pages has %d bytes", f.pages, f.stored)
	case f.codec == codecZstd && int(f.stored) >= f.size():
		return corrupt("zstd frame of %d pages has %d bytes", f.pages, f.stored)
	case f.codec > codecZstd:
		return fmt.Errorf("%w: frame codec %d", ErrUnsupported, f.codec)
	}
	return nil
}

// read fills dst, of exactly f's decoded size, from the pack. The stored bytes are verified before they are decoded.
func (f *frame) read(ctx context.Context, pack Blob, dst []byte) error {
	if f.codec == codecRaw {
		if err := pack.ReadAt(ctx, dst, int64(f.offset)); err != nil {
			return shortIsCorrupt(err)
		}
		return f.verify(ctx, dst)
	}
	buf := buffers.get(int(f.stored))
	defer buffers.put(buf)
	stored := (*buf)[:f.stored]
	if err := pack.ReadAt(ctx, stored, int64(f.offset)); err != nil {
		return shortIsCorrupt(err)
	}
	if err := cpu.Acquire(ctx); err != nil {
		return err
	}
	defer cpu.Release(ctx)
	if blake(stored) != f.sum {
		return errSum
	}
	return unzstd(dst, stored)
}

func (f *frame) verify(ctx context.Context, stored []byte) error {
	if err := cpu.Acquire(ctx); err != nil {
		return err
	}
	defer cpu.Release(ctx)
	if blake(stored) != f.sum {
		return errSum
	}
	return nil
}

var errSum = corrupt("BLAKE3 does not match")

// unzstd decodes src into dst, which it must fill exactly.
func unzstd(dst, src []byte) error {
	out, err := zstdDecoder().DecodeAll(src, dst[:0:len(dst)])
	if err != nil {
		return corrupt("zstd: %w", err)
	}
	if len(out) != len(dst) || &out[0] != &dst[0] {
		return corrupt("zstd: %d bytes decoded, not %d", len(out), len(dst))
	}
	return nil
}

// zstdDecoder is one decoder for the process. It has as many states as cpu has slots of both kinds, and whoever calls it holds a slot,
// so nobody waits for a state. It starts no goroutine.
var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(2*cpu.Slots()),
		zstd.WithDecoderMaxMemory(MaxFrameSize),
		zstd.WithDecoderMaxWindow(MaxFrameSize),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
})

// bufferPool keeps byte slices, by powers of two of their size.
type bufferPool [32]sync.Pool

var buffers bufferPool

// get gives a buffer of at least n bytes of anything.
func (b *bufferPool) get(n int) *[]byte {
	class := max(12, bits.Len(uint(n-1)))
	if p, ok := b[class].Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, 1<<class)
	return &p
}

func (b *bufferPool) put(p *[]byte) { b[bits.Len(uint(len(*p)-1))].Put(p) }
