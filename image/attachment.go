package image

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"faultline/internal/cpu"
)

// Attachments gives the blobs the image carries beside its memory, in the manifest's order.
func (r *Reader) Attachments() []Attachment { return slices.Clone(r.manifest.attachments) }

// OpenAttachment gives the content of the attachment with that name. It is verified on the way: where the content is not
// what the manifest says, the last Read fails with [ErrCorrupt] and not with io.EOF, so use nothing before io.EOF came.
// The caller closes it. ctx holds for all reads.
func (r *Reader) OpenAttachment(ctx context.Context, name string) (io.ReadCloser, error) {
	for _, a := range r.manifest.attachments {
		if a.Name != name {
			continue
		}
		blob, err := openBlob(ctx, r.blobs, a.Descriptor)
		if err != nil {
			return nil, partError("attachment", a.Descriptor, err)
		}
		return &blobReader{ctx: ctx, part: "attachment", blob: blob, digest: a.Descriptor.Digest, hash: sha256.New()}, nil
	}
	return nil, badInput("the image has no attachment %q", name)
}

// A blobReader reads a blob from its start and checks its SHA-256 at its end.
type blobReader struct {
	ctx    context.Context
	part   string
	blob   Blob
	digest digest.Digest
	hash   hash.Hash
	off    int64
}

func (b *blobReader) Read(p []byte) (int, error) {
	n := int(min(b.blob.Size()-b.off, int64(len(p))))
	if n == 0 && len(p) > 0 {
		if digest.NewDigest(digest.SHA256, b.hash) != b.digest {
			return 0, b.fail(0, corrupt("SHA-256 does not match"))
		}
		return 0, io.EOF
	}
	if err := b.blob.ReadAt(b.ctx, p[:n], b.off); err != nil {
		return 0, b.fail(n, shortIsCorrupt(err))
	}
	if err := cpu.Acquire(b.ctx); err != nil {
		return 0, err
	}
	defer cpu.Release(b.ctx)
	b.hash.Write(p[:n])
	b.off += int64(n)
	return n, nil
}

func (b *blobReader) fail(n int, err error) error {
	return &ReadError{Part: b.part, Digest: b.digest, Offset: b.off, Length: int64(n), Err: err}
}

func (b *blobReader) Close() error {
	if err := b.blob.Close(); err != nil {
		return fmt.Errorf("close %s: %w", b.part, err)
	}
	return nil
}
