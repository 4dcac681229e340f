package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"faultline/internal/cpu"
)

// Progress is called now and then with how many bytes of the whole are done; total is -1 where it is not known. Calls do
// not overlap, and done never falls.
type Progress func(done, total int64)

// A meter counts what many goroutines have done.
type meter struct {
	mu          sync.Mutex
	done, total int64
	report      Progress
}

func (m *meter) add(n int64) {
	if m.report == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
	m.report(m.done, m.total)
}

// Verify reads all of the image: every pack and attachment against its SHA-256, every index block and frame against its
// BLAKE3, and decodes every frame. The first fault ends it. progress may be nil; it counts bytes of blobs and of the image.
func (r *Reader) Verify(ctx context.Context, progress Progress) error {
	m := &meter{report: progress, total: r.config.Size}
	for _, p := range r.packs {
		m.total += p.Size()
	}
	for _, a := range r.manifest.attachments {
		m.total += a.Descriptor.Size
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cpu.Slots() + 1) // one more, as some wait for the store
	for i := range r.packs {
		g.Go(func() error { return r.verifyPack(ctx, i, m) })
	}
	for _, a := range r.manifest.attachments {
		g.Go(func() error { return r.verifyAttachment(ctx, a.Name, m) })
	}
	for i := range r.blocks {
		g.Go(func() error { return r.verifyBlock(ctx, int64(i), m) })
	}
	return g.Wait()
}

func (r *Reader) verifyPack(ctx context.Context, i int, m *meter) error {
	return drain(&blobReader{ctx: ctx, part: "pack", blob: r.packs[i], digest: r.manifest.packs[i].Digest, hash: sha256.New()}, m)
}

func (r *Reader) verifyAttachment(ctx context.Context, name string, m *meter) error {
	a, err := r.OpenAttachment(ctx, name)
	if err != nil {
		return err
	}
	return errors.Join(drain(a, m), a.Close())
}

func drain(from io.Reader, m *meter) error {
	buf := buffers.get(1 << 20)
	defer buffers.put(buf)
	for {
		n, err := from.Read(*buf)
		m.add(int64(n))
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *Reader) verifyBlock(ctx context.Context, i int64, m *meter) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.root.blocks[i].length > 0 {
		b, err := r.readBlock(ctx, i) // not r.block: what is in memory says nothing about what is stored
		if err != nil {
			return err
		}
		for k := range b.frames {
			var held heldFrame
			err := held.fill(ctx, r, &b.frames[k])
			held.release()
			if err != nil {
				return err
			}
		}
	}
	m.add(int64(r.root.blockPages(i)) * PageSize)
	return nil
}
