package image

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"faultline/internal/cpu"
)

// manifest is an image's manifest with its layers sorted out.
type manifest struct {
	raw         ocispec.Manifest
	config      ocispec.Descriptor
	root        ocispec.Descriptor
	packs       []ocispec.Descriptor
	attachments []Attachment
}

// An Attachment is a blob that an image carries beside its memory.
type Attachment struct {
	Name       string
	Descriptor ocispec.Descriptor
}

var attachmentName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func parseManifest(b []byte) (*manifest, error) {
	m := &manifest{}
	if err := decodeJSON(b, &m.raw); err != nil {
		return nil, err
	}
	switch {
	case m.raw.SchemaVersion != 2:
		return nil, fmt.Errorf("%w: manifest schema version %d", ErrUnsupported, m.raw.SchemaVersion)
	case m.raw.MediaType != ocispec.MediaTypeImageManifest:
		return nil, fmt.Errorf("%w: manifest of type %q", ErrUnsupported, m.raw.MediaType)
	case m.raw.ArtifactType != ArtifactType:
		return nil, fmt.Errorf("%w: artifact of type %q", ErrUnsupported, m.raw.ArtifactType)
	}
	m.config = m.raw.Config
	if err := checkDescriptor(m.config, MediaTypeConfig, maxConfigSize); err != nil {
		return nil, err
	}
	return m, m.sortLayers()
}

func (m *manifest) sortLayers() error {
	layers := m.raw.Layers
	if len(layers) == 0 {
		return corrupt("manifest has no layers")
	}
	m.root, layers = layers[0], layers[1:]
	if err := checkDescriptor(m.root, MediaTypeIndex, maxRootSize); err != nil {
		return err
	}
	for len(layers) > 0 && layers[0].MediaType == MediaTypePack {
		if err := checkDescriptor(layers[0], MediaTypePack, MaxPackSize); err != nil {
			return err
		}
		m.packs, layers = append(m.packs, layers[0]), layers[1:]
	}
	if len(m.packs) > maxPacks || len(layers) > maxAttachments {
		return corrupt("manifest has %d packs and %d attachments", len(m.packs), len(layers))
	}
	for _, d := range layers {
		if err := m.addAttachment(d); err != nil {
			return err
		}
	}
	return nil
}

func (m *manifest) addAttachment(d ocispec.Descriptor) error {
	if err := checkDescriptor(d, MediaTypeBlob, 1<<62); err != nil {
		return err
	}
	name := d.Annotations[ocispec.AnnotationTitle]
	if !attachmentName.MatchString(name) {
		return corrupt("attachment is named %q", name)
	}
	if slices.ContainsFunc(m.attachments, func(a Attachment) bool { return a.Name == name }) {
		return corrupt("two attachments are named %q", name)
	}
	m.attachments = append(m.attachments, Attachment{name, d})
	return nil
}

// checkPacks says whether the manifest's packs are the root's.
func (m *manifest) checkPacks(r *root) error {
	if len(m.packs) != len(r.packs) {
		return corrupt("manifest has %d packs, index root %d", len(m.packs), len(r.packs))
	}
	for i, p := range r.packs {
		if m.packs[i].Digest != p.digest() || m.packs[i].Size != p.size {
			return corrupt("pack %d is %s in the manifest, %s in the index root", i, m.packs[i].Digest, p.digest())
		}
	}
	return nil
}

func checkDescriptor(d ocispec.Descriptor, mediaType string, limit int64) error {
	switch {
	case d.MediaType != mediaType:
		return corrupt("manifest has a %q in place of a %q", d.MediaType, mediaType)
	case d.Size < 0 || d.Size > limit:
		return corrupt("%s of %d bytes", mediaType, d.Size)
	case d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256:
		return corrupt("%s with digest %q", mediaType, d.Digest)
	}
	return nil
}

// readWhole reads and verifies a blob of at most limit bytes.
func readWhole(ctx context.Context, blobs Blobs, part string, d ocispec.Descriptor, limit int64) (p []byte, err error) {
	fail := func(err error) error {
		return &ReadError{Part: part, Digest: d.Digest, Length: d.Size, Err: err}
	}
	if d.Size < 0 || d.Size > limit {
		return nil, fail(corrupt("%d bytes, at most %d are allowed", d.Size, limit))
	}
	if d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256 {
		return nil, fail(badInput("not a sha256 digest"))
	}
	if d.Data != nil {
		p = d.Data
	} else if p, err = readBlob(ctx, blobs, d); err != nil {
		return nil, fail(err)
	}
	if int64(len(p)) != d.Size {
		return nil, fail(corrupt("%d bytes are there", len(p)))
	}
	if err := cpu.Acquire(ctx); err != nil {
		return nil, fail(err)
	}
	defer cpu.Release(ctx)
	if digest.FromBytes(p) != d.Digest {
		return nil, fail(corrupt("SHA-256 does not match"))
	}
	return p, nil
}

func readBlob(ctx context.Context, blobs Blobs, d ocispec.Descriptor) ([]byte, error) {
	blob, err := openBlob(ctx, blobs, d)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	p := make([]byte, d.Size)
	if len(p) == 0 {
		return p, nil
	}
	if err := blob.ReadAt(ctx, p, 0); err != nil {
		return nil, shortIsCorrupt(err)
	}
	return p, nil
}

// openBlob opens a blob that has the size d says.
func openBlob(ctx context.Context, blobs Blobs, d ocispec.Descriptor) (Blob, error) {
	blob, err := blobs.OpenBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	if blob.Size() != d.Size {
		err := corrupt("%d bytes are there, not %d", blob.Size(), d.Size)
		blob.Close()
		return nil, err
	}
	return blob, nil
}

// encode gives the manifest's JSON.
func (m *manifest) encode() ([]byte, error) {
	m.raw = ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: ArtifactType,
		Config:       m.config,
		Layers:       append([]ocispec.Descriptor{m.root}, m.packs...),
	}
	for _, a := range m.attachments {
		a.Descriptor.Annotations = map[string]string{ocispec.AnnotationTitle: a.Name}
		m.raw.Layers = append(m.raw.Layers, a.Descriptor)
	}
	b, err := json.Marshal(m.raw)
	if err == nil && len(b) > maxManifestSize {
		err = badInput("the manifest would have %d bytes, at most %d are allowed", len(b), maxManifestSize)
	}
	return b, err
}
