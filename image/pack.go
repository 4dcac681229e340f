package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options say how [Pack] writes an image. The zero value is good for most.
type Options struct {
	Codec     Codec // empty: [Zstd]. Frames that zstd hardly shrinks are stored raw
	Level     int   // of zstd, 1 to 22; 0: 3
	FrameSize int64 // bytes of the image in a frame, a power of two from PageSize to MaxFrameSize; 0: 256 KiB
	PackSize  int64 // bytes at which a new pack is begun, from PageSize to MaxPackSize; 0: MaxPackSize

	Segments  []Segment            // nil: one named "memory", at address 0
	Attach    map[string]io.Reader // further blobs by name: letters, digits and ._- only, at most 128 bytes
	Created   time.Time            // zero: not recorded
	CreatedBy string               // empty: not recorded

	Progress Progress // counts bytes of the input; may be nil
	// Background packs on threads of low priority: for servers, whose clients must not notice.
	Background bool

	blockShift int // for tests; 0: 13
}

const (
	// A guest-like GiB took 220 MiB in frames of 256 KiB and 241 MiB in frames of 64 KiB; a fault waited 0.4 and 0.2 ms
	// for its frame, and a whole restore took 0.5 and 0.9 s.
	defaultFrameSize  = 256 << 10
	defaultLevel      = 3
	defaultBlockShift = 13
)

// Pack writes an image of size bytes of src, or of all of src where size is -1, and gives its manifest. Size must be a
// positive multiple of PageSize. Where src is a regular *os.File, it is read from its current offset and its holes are
// skipped; anything else is read as a stream.
//
// Frames are compressed in parallel, with less than 256 MiB of memory in all, and the same content and options always
// give the same bytes. Pack waits for a Read of src that is under way even if ctx ends. After an error, blobs that were
// already committed are the stage's to remove.
//
// Errors wrap [ErrBadInput], the store's, src's or ctx's.
func Pack(ctx context.Context, stage Stage, src io.Reader, size int64, o Options) (ocispec.Descriptor, error) {
	m, err := packImage(ctx, stage, src, size, o)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("pack: %w", err)
	}
	return m, nil
}

func packImage(ctx context.Context, stage Stage, src io.Reader, size int64, o Options) (none ocispec.Descriptor, err error) {
	if err := o.complete(); err != nil {
		return none, err
	}
	in, err := newSource(src, size, o.FrameSize)
	if err != nil {
		return none, err
	}
	if in.size >= 0 {
		if err := checkSize(in.size); err != nil {
			return none, err
		}
		if _, err := o.config(in.size); err != nil {
			return none, err
		}
	}
	w := newWriter(stage, &o)
	if err := pipe(ctx, in, w, &o); err != nil {
		w.abort()
		return none, err
	}
	return commitImage(ctx, stage, w, &o)
}

// complete checks o and fills in what was left to us.
func (o *Options) complete() error {
	o.Codec = orDefault(o.Codec, Zstd)
	o.Level = orDefault(o.Level, defaultLevel)
	o.FrameSize = orDefault(o.FrameSize, defaultFrameSize)
	o.PackSize = orDefault(o.PackSize, MaxPackSize)
	o.blockShift = orDefault(o.blockShift, defaultBlockShift)
	switch {
	case o.Codec != Zstd && o.Codec != Raw:
		return badInput("codec %q", o.Codec)
	case o.Level < 1 || o.Level > 22:
		return badInput("zstd level %d is not in 1…22", o.Level)
	case o.FrameSize < PageSize || o.FrameSize > MaxFrameSize || bits.OnesCount64(uint64(o.FrameSize)) != 1:
		return badInput("frame size %d is not a power of two from %d to %d", o.FrameSize, PageSize, MaxFrameSize)
	case o.PackSize < PageSize || o.PackSize > MaxPackSize:
		return badInput("pack size %d is not in %d…%d", o.PackSize, PageSize, MaxPackSize)
	case len(o.Attach) > maxAttachments:
		return badInput("%d attachments, at most %d are allowed", len(o.Attach), maxAttachments)
	}
	for name := range o.Attach {
		if !attachmentName.MatchString(name) {
			return badInput("attachment name %q", name)
		}
	}
	return nil
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// config is the configuration of an image of that size.
func (o *Options) config(size int64) (Config, error) {
	c := Config{Size: size, PageSize: PageSize, Segments: o.Segments, Created: o.Created, CreatedBy: o.CreatedBy}
	if c.Segments == nil {
		c.Segments = []Segment{{Name: "memory", Length: size}}
	}
	if reason := c.problem(); reason != "" {
		return c, badInput("%s", reason)
	}
	return c, nil
}

// commitImage writes what comes after the packs: attachments, root, config and, last, the manifest.
func commitImage(ctx context.Context, stage Stage, w *writer, o *Options) (none ocispec.Descriptor, err error) {
	m := &manifest{packs: w.packs}
	c, err := o.config(w.root.pages * PageSize)
	if err != nil {
		return none, err
	}
	for _, name := range slices.Sorted(maps.Keys(o.Attach)) {
		d, err := commitBlob(ctx, stage, MediaTypeBlob, o.Attach[name])
		if err != nil {
			return none, fmt.Errorf("attachment %q: %w", name, err)
		}
		m.attachments = append(m.attachments, Attachment{name, d})
	}
	if m.root, err = commitBlob(ctx, stage, MediaTypeIndex, bytes.NewReader(w.root.append(nil))); err != nil {
		return none, err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return none, err
	}
	if m.config, err = commitBlob(ctx, stage, MediaTypeConfig, bytes.NewReader(b)); err != nil {
		return none, err
	}
	if b, err = m.encode(); err != nil {
		return none, err
	}
	d, err := commitBlob(ctx, stage, ocispec.MediaTypeImageManifest, bytes.NewReader(b))
	d.ArtifactType = ArtifactType
	return d, err
}

// commitBlob stages and commits all of r.
func commitBlob(ctx context.Context, stage Stage, mediaType string, r io.Reader) (none ocispec.Descriptor, err error) {
	w, err := stage.Create(ctx)
	if err != nil {
		return none, err
	}
	if _, err := io.Copy(struct{ io.Writer }{w}, contextReader{ctx, r}); err != nil {
		w.Abort()
		return none, err
	}
	d, err := w.Commit(ctx, mediaType)
	if err != nil {
		w.Abort()
		return none, err
	}
	return d, nil
}

// A contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
