// Package image writes and reads snapshot images: memory content that never changes, kept as an OCI artifact. Any page of
// it can be read by itself and is verified before it is used; doc/image-format.md describes the format.
//
// [Pack] makes an image from a stream or a file. [Open] gives a [Reader], which serves any range of it to many goroutines.
// Where the blobs live is the business of whoever implements [Blobs] and [Stage]; package store has implementations.
package image

import (
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PageSize is the unit of an image, in bytes. It does not depend on the machine.
const PageSize = 4096

// Media types of an image and its parts.
const (
	ArtifactType    = "application/vnd.faultline.image.v1"
	MediaTypeConfig = "application/vnd.faultline.config.v1+json"
	MediaTypeIndex  = "application/vnd.faultline.index.v1"
	MediaTypePack   = "application/vnd.faultline.pack.v1"
	MediaTypeBlob   = "application/vnd.faultline.blob.v1"
)

// Limits of the format. A reader refuses what exceeds them.
const (
	MaxSize      = 8 << 40 // bytes in an image
	MaxPackSize  = 1 << 30 // bytes in a pack
	MaxFrameSize = 2 << 20 // bytes in a decoded frame
)

const (
	maxManifestSize = 4 << 20
	maxConfigSize   = 1 << 20
	maxRootSize     = 16 << 20
	maxBlockSize    = 2 << 20
	maxBlocks       = 1 << 18
	maxPacks        = 16384
	maxAttachments  = 1024
	maxSegments     = 4096
	maxFramePages   = MaxFrameSize / PageSize
	minBlockShift   = 4
	maxBlockShift   = 14
	maxFrameShift   = 9
)

// Blobs is what a store gives the reader.
type Blobs interface {
	// OpenBlob opens the blob that d names, by its digest and size. The caller closes it.
	OpenBlob(ctx context.Context, d ocispec.Descriptor) (Blob, error)
}

// A Blob is an open blob. Its methods may be called by many goroutines at once.
type Blob interface {
	// ReadAt fills p with the bytes at off, entirely, or fails. p may be any memory, also outside the Go heap.
	// A range that ends behind the blob's end is an error that wraps io.EOF or io.ErrUnexpectedEOF.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// Size is the blob's length in bytes.
	Size() int64
	Close() error
}

// Stage is what a store gives the writer.
type Stage interface {
	// Create begins a new blob, which nobody sees before it is committed. ctx holds for the writer's life.
	Create(ctx context.Context) (BlobWriter, error)
}

// A BlobWriter takes one blob's content.
type BlobWriter interface {
	io.Writer
	// Commit makes the blob durable and returns its descriptor. A stage may show it to
	// others only later, with all that belongs together.
	Commit(ctx context.Context, mediaType string) (ocispec.Descriptor, error)
	// Abort throws the blob away. After Commit has succeeded it does nothing.
	Abort() error
}
