package store

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"faultline/image"
)

const (
	maxIndex    = 16 << 20 // bytes of index.json
	maxManifest = 4 << 20  // of a manifest
)

// Tagged is a name and the manifest it stands for.
type Tagged struct {
	Ref      Ref
	Manifest ocispec.Descriptor
}

func newIndex() *ocispec.Index {
	return &ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
}

func encodeIndex(x *ocispec.Index) ([]byte, error) {
	b, err := json.Marshal(x)
	if err == nil && len(b) > maxIndex {
		err = fmt.Errorf("store: index.json would have %d bytes, at most %d are allowed", len(b), maxIndex)
	}
	return b, err
}

func (l *Layout) readIndex() (*ocispec.Index, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	b, err := readFile(l.path(ocispec.ImageIndexFile), maxIndex)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return parseIndex(b)
}

// parseIndex is not strict: other tools write to a layout too.
func parseIndex(b []byte) (*ocispec.Index, error) {
	x := newIndex()
	if err := json.Unmarshal(b, x); err != nil {
		return nil, fmt.Errorf("store: index.json: %w: %w", image.ErrCorrupt, err)
	}
	if x.SchemaVersion != 2 {
		return nil, fmt.Errorf("store: index.json has schema version %d: %w", x.SchemaVersion, ErrUnsupported)
	}
	return x, nil
}

// refOf gives the name under which d stands in index.json, if it is one of ours. Some tools write a bare tag there: it
// is taken as a name.
func refOf(d ocispec.Descriptor) (Ref, bool) {
	r, err := Parse(d.Annotations[ocispec.AnnotationRefName])
	return r, err == nil && r.Digest == ""
}

// List gives all names, in order. It fails with [ErrNotFound] if there is no store.
func (l *Layout) List(ctx context.Context) ([]Tagged, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	x, err := l.readIndex()
	if err != nil {
		return nil, err
	}
	var list []Tagged
	for _, d := range x.Manifests {
		if r, ok := refOf(d); ok {
			list = append(list, Tagged{r, plain(d)})
		}
	}
	slices.SortFunc(list, func(a, b Tagged) int { return strings.Compare(a.Ref.String(), b.Ref.String()) })
	return list, nil
}

// plain is d without the name it has in index.json.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	d.Annotations = nil
	return d
}

// Resolve gives the manifest that ref stands for, after reading it and checking its SHA-256. It fails with [ErrNotFound] or
// image.ErrCorrupt. A digest need not be in index.json, and the name before it is not looked at.
func (l *Layout) Resolve(ctx context.Context, ref Ref) (none ocispec.Descriptor, err error) {
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if reason := ref.problem(); reason != "" {
		return none, fmt.Errorf("%w %q: %s", ErrBadRef, ref, reason)
	}
	d, err := l.find(ref)
	if err != nil {
		return none, fmt.Errorf("%s: %w", ref, err)
	}
	if err := l.checkManifest(d); err != nil {
		return none, fmt.Errorf("%s: %w", ref, err)
	}
	return d, nil
}

func (l *Layout) find(ref Ref) (ocispec.Descriptor, error) {
	x, err := l.readIndex()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, d := range x.Manifests {
		if r, ok := refOf(d); ok && r == ref || ref.Digest != "" && d.Digest == ref.Digest {
			return plain(d), nil
		}
	}
	if ref.Digest == "" {
		return ocispec.Descriptor{}, fmt.Errorf("store: %w in %s", ErrNotFound, l.dir)
	}
	f, size, err := l.open(ref.Digest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: ref.Digest, Size: size}, nil
}

func (l *Layout) checkManifest(d ocispec.Descriptor) error {
	f, size, err := l.open(d.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	if size != d.Size || size > maxManifest {
		return fmt.Errorf("store: manifest %s has %d bytes: %w", d.Digest, size, image.ErrCorrupt)
	}
	b, err := readFile(f.Name(), maxManifest)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if digest.FromBytes(b) != d.Digest {
		return fmt.Errorf("store: SHA-256 of manifest %s does not match: %w", d.Digest, image.ErrCorrupt)
	}
	return nil
}

// Tag makes ref, which must have a tag, stand for the manifest d, and for nothing else from then on. The manifest must be
// in the store. Tags that others write at the same time are kept.
func (l *Layout) Tag(ctx context.Context, ref Ref, d ocispec.Descriptor) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkTag(ref); err != nil {
		return err
	}
	if err := l.checkManifest(d); err != nil {
		return fmt.Errorf("tag %s: %w", ref, err)
	}
	if err := l.prepare(); err != nil {
		return err
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	f, err := l.stageIndex(ref, d)
	if err != nil {
		return err
	}
	return l.publish(f, ocispec.ImageIndexFile)
}

// checkTag says whether an image can be given that name.
func checkTag(ref Ref) error {
	if reason := ref.problem(); reason != "" {
		return fmt.Errorf("%w %q: %s", ErrBadRef, ref, reason)
	}
	if ref.Digest != "" {
		return fmt.Errorf("%w %q: a digest cannot be given to an image", ErrBadRef, ref)
	}
	return nil
}

// stageIndex writes the index.json in which ref stands for d, to be published. The lock must be held.
func (l *Layout) stageIndex(ref Ref, d ocispec.Descriptor) (*os.File, error) {
	x, err := l.readIndex()
	if err != nil {
		return nil, err
	}
	x.Manifests = slices.DeleteFunc(x.Manifests, func(d ocispec.Descriptor) bool {
		r, ok := refOf(d)
		return ok && r == ref
	})
	d = plain(d)
	d.Data = nil
	d.Annotations = map[string]string{ocispec.AnnotationRefName: ref.String()}
	x.Manifests = append(x.Manifests, d)
	b, err := encodeIndex(x)
	if err != nil {
		return nil, err
	}
	return l.stageContent(b)
}
