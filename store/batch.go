package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"faultline/image"
	"faultline/internal/cpu"
)

// A Batch is what is on its way into a store and becomes part of it as a whole, or
// not at all. It implements image.Stage. Its blobs lie in a directory of their own,
// durable and locked, until they are published; those of a process that died are removed by the
// next writer.
type Batch struct {
	l      *Layout
	mu     sync.Mutex
	staged []stagedBlob // in the order of their commits
}

type stagedBlob struct {
	f      *os.File
	digest digest.Digest
}

// Begin starts a batch. The store is made if there is none. Call Abort in the end,
// also after publishing.
func (l *Layout) Begin() (*Batch, error) {
	if err := l.prepare(); err != nil {
		return nil, err
	}
	return &Batch{l: l}, nil
}

// Pack makes an image in the store, as image.Pack does: all of it, or nothing. Tag
// gives it a name.
func (l *Layout) Pack(ctx context.Context, src io.Reader, size int64, o image.Options) (ocispec.Descriptor, error) {
	return l.pack(ctx, src, size, o, func(b *Batch, _ ocispec.Descriptor) error { return b.Publish(ctx) })
}

// PackAs makes an image in the store and gives it a name: both, or nothing is left.
func (l *Layout) PackAs(ctx context.Context, ref Ref, src io.Reader, size int64, o image.Options) (ocispec.Descriptor, error) {
	if err := checkTag(ref); err != nil {
		return ocispec.Descriptor{}, err
	}
	return l.pack(ctx, src, size, o, func(b *Batch, d ocispec.Descriptor) error { return b.PublishAs(ctx, ref, d) })
}

func (l *Layout) pack(ctx context.Context, src io.Reader, size int64, o image.Options, publish func(*Batch, ocispec.Descriptor) error) (none ocispec.Descriptor, err error) {
	b, err := l.Begin()
	if err != nil {
		return none, err
	}
	defer func() { err = errors.Join(err, b.Abort()) }()
	manifest, err := image.Pack(ctx, b, src, size, o)
	if err != nil {
		return none, err
	}
	if err := publish(b, manifest); err != nil {
		return none, err
	}
	return manifest, nil
}

// Create implements image.Stage.
func (b *Batch) Create(ctx context.Context) (image.BlobWriter, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := b.l.stage()
	if err != nil {
		return nil, err
	}
	return &blobWriter{ctx: ctx, b: b, f: f, hash: sha256.New()}, nil
}

// Publish moves everything that was committed into the store, in that order, or
// nothing. What it names is then found by its digest; Layout.Tag gives it a name. If
// the process dies in the middle, blobs may be left to which nothing refers, but a
// manifest never comes before what it lists.
func (b *Batch) Publish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	unlock, err := b.l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return b.move()
}

// PublishAs does what Publish and Layout.Tag do, in one step: a caller that is
// interrupted, or a disk that is full, can't come between them.
func (b *Batch) PublishAs(ctx context.Context, ref Ref, manifest ocispec.Descriptor) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkTag(ref); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.ContainsFunc(b.staged, func(s stagedBlob) bool { return s.digest == manifest.Digest }) {
		return fmt.Errorf("tag %s: store: manifest %s is not in the batch: %w", ref, manifest.Digest, ErrNotFound)
	}
	unlock, err := b.l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	index, err := b.l.stageIndex(ref, manifest) // while nothing is visible: it may need the disk's last room
	if err != nil {
		return err
	}
	if err := b.move(); err != nil {
		return errors.Join(err, os.Remove(index.Name()), index.Close())
	}
	return b.l.publish(index, ocispec.ImageIndexFile)
}

// move publishes the blobs. If that fails it takes back those that were not in the
// store before; under the store's lock, so that no other batch has come to rely on
// them.
func (b *Batch) move() error {
	var fresh []string
	for len(b.staged) > 0 {
		s := b.staged[0]
		b.staged = b.staged[1:]
		name := filepath.Join(blobDir, s.digest.Encoded())
		if _, err := os.Lstat(b.l.path(name)); errors.Is(err, fs.ErrNotExist) {
			fresh = append(fresh, name)
		}
		if err := b.l.publish(s.f, name); err != nil {
			for _, name := range fresh {
				os.Remove(b.l.path(name)) // what stays does no harm
			}
			return err
		}
	}
	return nil
}

// Abort removes everything that was committed and not published.
func (b *Batch) Abort() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, s := range b.staged {
		errs = append(errs, os.Remove(s.f.Name()), s.f.Close())
	}
	b.staged = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// keep takes a blob that is complete into the batch.
func (b *Batch) keep(f *os.File, d digest.Digest) error {
	if err := f.Sync(); err != nil {
		return discard(f, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.staged = append(b.staged, stagedBlob{f, d})
	return nil
}

// A blobWriter writes a staged file and hashes on the way.
type blobWriter struct {
	ctx  context.Context
	b    *Batch
	f    *os.File // nil: committed or aborted
	hash hash.Hash
	size int64
	err  error // the first, after which nothing is committed
}

var errDone = errors.New("blob is already committed or aborted")

func (w *blobWriter) Write(p []byte) (int, error) {
	if w.f == nil {
		return 0, errDone
	}
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.f.Write(p)
	w.size += int64(n)
	if err == nil {
		err = cpu.Do(w.ctx, func() { w.hash.Write(p) })
	}
	if err != nil {
		w.err = fmt.Errorf("store: %w", err)
	}
	return n, w.err
}

func (w *blobWriter) Commit(ctx context.Context, mediaType string) (none ocispec.Descriptor, err error) {
	if w.f == nil {
		return none, errDone
	}
	if err := errors.Join(w.err, ctx.Err()); err != nil {
		return none, err
	}
	d := digest.NewDigest(digest.SHA256, w.hash)
	f := w.f
	w.f = nil
	if err := w.b.keep(f, d); err != nil {
		return none, err
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: w.size}, nil
}

func (w *blobWriter) Abort() error {
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f = nil
	if err := errors.Join(os.Remove(f.Name()), f.Close()); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}
