package image

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"

	"faultline/internal/cpu"
)

// Export writes the image's content to w, bit for bit, from offset 0. A regular file is first cut to nothing and set to
// the image's size, and zero pages are left as holes; to anything else (a device, say) zeros are written. After an error
// w holds a part. progress may be nil.
func Export(ctx context.Context, r *Reader, w io.WriterAt, progress Progress) error {
	sparse, err := makeSparse(w, r.Size())
	if err != nil {
		return err
	}
	m := &meter{report: progress, total: r.Size()}
	g, running := errgroup.WithContext(ctx)
	g.SetLimit(cpu.Slots() + 1) // one more, as some wait for the store or the file
	step := max(r.FrameSize(), 256<<10)
	for off := int64(0); off < r.Size() && running.Err() == nil; off += step {
		g.Go(func() error {
			n := min(step, r.Size()-off)
			err := r.exportRange(running, w, off, n, sparse)
			if err == nil {
				m.add(n)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// makeSparse turns a regular file into one hole of that size.
func makeSparse(w io.WriterAt, size int64) (bool, error) {
	f, ok := w.(*os.File)
	if !ok {
		return false, nil
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	if err := f.Truncate(0); err != nil {
		return false, fmt.Errorf("export: %w", err)
	}
	if err := f.Truncate(size); err != nil {
		return false, fmt.Errorf("export: %w", err)
	}
	return true, nil
}

// exportRange reads the range at once, so that each frame is decoded once, and writes it extent by extent.
func (r *Reader) exportRange(ctx context.Context, w io.WriterAt, off, length int64, sparse bool) error {
	buf := buffers.get(int(length))
	defer buffers.put(buf)
	p := (*buf)[:length]
	if err := r.ReadAt(ctx, p, off); err != nil {
		return err
	}
	for len(p) > 0 {
		n, zero, err := r.Extent(ctx, off)
		if err != nil {
			return err
		}
		n = min(n, int64(len(p)))
		if !zero || !sparse {
			if _, err := w.WriteAt(p[:n], off); err != nil {
				return fmt.Errorf("export: %w", err)
			}
		}
		p, off = p[n:], off+n
	}
	return nil
}
