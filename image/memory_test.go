package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a store in memory, with places to do harm at.
type memory struct {
	mu    sync.Mutex
	blobs map[digest.Digest][]byte
	opens int // blobs open now
	reads int // ReadAt calls so far

	beforeRead  func() error // of each ReadAt; may be nil
	beforeWrite func(p []byte) error
}

func newMemory() *memory { return &memory{blobs: map[digest.Digest][]byte{}} }

func (m *memory) OpenBlob(_ context.Context, d ocispec.Descriptor) (Blob, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[d.Digest]
	if !ok {
		return nil, fmt.Errorf("%s: %w", d.Digest, fs.ErrNotExist)
	}
	m.opens++
	return &memoryBlob{m: m, b: b}, nil
}

func (m *memory) Create(ctx context.Context) (BlobWriter, error) {
	return &memoryWriter{ctx: ctx, m: m}, nil
}

type memoryBlob struct {
	m *memory
	b []byte
}

func (b *memoryBlob) ReadAt(_ context.Context, p []byte, off int64) error {
	b.m.mu.Lock()
	b.m.reads++
	hook := b.m.beforeRead
	b.m.mu.Unlock()
	if hook != nil {
		if err := hook(); err != nil {
			return err
		}
	}
	if off < 0 || off > int64(len(b.b)) || int64(len(p)) > int64(len(b.b))-off {
		return io.ErrUnexpectedEOF
	}
	copy(p, b.b[off:])
	return nil
}

func (b *memoryBlob) Size() int64 { return int64(len(b.b)) }

func (b *memoryBlob) Close() error {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.m.opens--
	return nil
}

type memoryWriter struct {
	ctx context.Context // as a store may, it refuses to write once this ends
	m   *memory
	buf bytes.Buffer
}

func (w *memoryWriter) Write(p []byte) (int, error) {
	if w.m.beforeWrite != nil {
		if err := w.m.beforeWrite(p); err != nil {
			return 0, err
		}
	}
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.buf.Write(p)
}

func (w *memoryWriter) Commit(ctx context.Context, mediaType string) (ocispec.Descriptor, error) {
	if err := errors.Join(w.ctx.Err(), ctx.Err()); err != nil {
		return ocispec.Descriptor{}, err
	}
	return w.m.put(mediaType, bytes.Clone(w.buf.Bytes())), nil
}

func (w *memoryWriter) Abort() error { return nil }

func (m *memory) put(mediaType string, b []byte) ocispec.Descriptor {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := digest.FromBytes(b)
	m.blobs[d] = b
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

// packBytes packs content into a new store.
func packBytes(t testing.TB, content []byte, o Options) (*memory, ocispec.Descriptor) {
	t.Helper()
	m := newMemory()
	d, err := Pack(t.Context(), m, bytes.NewReader(content), -1, o)
	if err != nil {
		t.Fatal(err)
	}
	return m, d
}

func openImage(t testing.TB, m *memory, d ocispec.Descriptor) *Reader {
	t.Helper()
	r, err := Open(t.Context(), m, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}
