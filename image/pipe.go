package image

import (
	"bytes"
	"context"
	"io"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"faultline/internal/cpu"
)

// A chunk is an aligned range of the image on its way from the source through an encoder to the writer.
type chunk struct {
	in   []byte // of the frame size
	size int64  // bytes of the image
	hole bool   // all zero, nothing in in; may be longer than a frame

	runs   []run  // pages from the chunk's start; kind 1 is the chunk's frame
	frame  frame  // without its place
	stored []byte // the frame; lies in in or out
	out    []byte
	done   chan struct{}
}

// encoders is how many chunks are encoded at once. With the largest frames each takes some 10 MB beside its two chunks of
// 4 MB, and at the strongest levels 40 MB (measured as heap, with two): the limits keep the sum under 256 MB.
func encoders(o *Options) int {
	if o.Codec == Zstd && zstd.EncoderLevelFromZstd(o.Level) == zstd.SpeedBestCompression {
		return min(cpu.Slots(), 2)
	}
	return min(cpu.Slots(), 12)
}

// chunksInFlight bounds the memory that a pipe takes: its input is not read while so many chunks are on their way.
func chunksInFlight(o *Options) int { return 2*encoders(o) + 2 }

// pipe moves all of in to w and finishes it. One goroutine reads, several encode, one writes, in the image's order. The
// channels have room for all chunks there are, so only waiting for a chunk ever blocks; they are closed at the input's end,
// and after an error not at all.
func pipe(ctx context.Context, in *source, w *writer, o *Options) error {
	enc, err := newEncoder(o)
	if err != nil {
		return err
	}
	n := chunksInFlight(o)
	free, work, order := make(chan *chunk, n), make(chan *chunk, n), make(chan *chunk, n)
	for range n {
		free <- newChunk(o, enc)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return readChunks(ctx, in, free, work, order) })
	for range encoders(o) {
		g.Go(func() error {
			if o.Background {
				cpu.Background()
			}
			return encodeChunks(ctx, enc, work)
		})
	}
	g.Go(func() error {
		// The last pack is committed here, as what it was created with ends with this group.
		return writeChunks(ctx, w, order, free, &meter{total: in.size, report: o.Progress})
	})
	return g.Wait()
}

func newChunk(o *Options, enc *zstd.Encoder) *chunk {
	c := &chunk{in: make([]byte, o.FrameSize), done: make(chan struct{}, 1)}
	if enc != nil {
		c.out = make([]byte, 0, enc.MaxEncodedSize(len(c.in)))
	}
	return c
}

func newEncoder(o *Options) (*zstd.Encoder, error) {
	if o.Codec == Raw {
		return nil, nil
	}
	return zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(encoders(o)),
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(o.Level)),
		zstd.WithEncoderCRC(false), // BLAKE3 covers the stored bytes
		zstd.WithSingleSegment(true),
		zstd.WithWindowSize(int(o.FrameSize)))
}

func readChunks(ctx context.Context, in *source, free <-chan *chunk, work, order chan<- *chunk) error {
	for {
		c, _, err := receive(ctx, free)
		if err != nil {
			return err
		}
		c.size, c.hole, err = in.next(c.in)
		if err == io.EOF {
			close(work)
			close(order)
			return nil
		}
		if err != nil {
			return err
		}
		work <- c
		order <- c
	}
}

func encodeChunks(ctx context.Context, enc *zstd.Encoder, work <-chan *chunk) error {
	for {
		c, more, err := receive(ctx, work)
		if !more {
			return err
		}
		if !c.hole {
			if err := cpu.Do(ctx, func() { c.encode(enc) }); err != nil {
				return err
			}
		}
		c.done <- struct{}{}
	}
}

func writeChunks(ctx context.Context, w *writer, order <-chan *chunk, free chan<- *chunk, m *meter) error {
	for {
		c, more, err := receive(ctx, order)
		if err != nil {
			return err
		}
		if !more {
			return w.finish(ctx)
		}
		if _, _, err := receive(ctx, c.done); err != nil {
			return err
		}
		if err := w.add(ctx, c); err != nil {
			return err
		}
		m.add(c.size)
		free <- c
	}
}

// receive takes the next value from ch. more is false when ch is closed or ctx has ended, which is the error then.
func receive[T any](ctx context.Context, ch <-chan T) (v T, more bool, err error) {
	select {
	case v, more = <-ch:
		return v, more, nil
	case <-ctx.Done():
		return v, false, ctx.Err()
	}
}

var zeroPage [PageSize]byte

// encode turns the content into runs and a frame. Without an encoder the frame is raw.
func (c *chunk) encode(enc *zstd.Encoder) {
	pages := c.squeeze()
	c.frame = frame{pages: uint16(len(pages) / PageSize), codec: codecRaw}
	c.stored = pages
	if len(pages) == 0 {
		return
	}
	if enc != nil {
		c.out = enc.EncodeAll(pages, c.out[:0])
		if len(c.out) <= len(pages)/8*7 {
			c.stored, c.frame.codec = c.out, codecZstd
		}
	}
	c.frame.stored = uint32(len(c.stored))
	c.frame.sum = blake(c.stored)
}

// squeeze notes which pages are zero, and moves the others together at the front of in.
func (c *chunk) squeeze() []byte {
	c.runs = c.runs[:0]
	kept := 0
	for off := 0; off < int(c.size); off += PageSize {
		page := c.in[off : off+PageSize]
		zero := bytes.Equal(page, zeroPage[:])
		kind := uint16(1)
		if zero {
			kind = 0
		}
		if n := len(c.runs); n == 0 || c.runs[n-1].kind != kind {
			c.runs = append(c.runs, run{start: uint16(off / PageSize), kind: kind, first: uint16(kept / PageSize)})
		}
		if !zero {
			if kept != off {
				copy(c.in[kept:], page)
			}
			kept += PageSize
		}
	}
	return c.in[:kept]
}
