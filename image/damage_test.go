package image

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"
)

// damaged packs an image of every kind of page into several packs, some frames raw and some zstd.
func damaged(t testing.TB) (*memory, ocispec.Descriptor, []byte) {
	rnd := rand.New(rand.NewPCG(21, 22))
	var content []byte
	for i := range 18 {
		content = append(content, genRow(rnd, pageKinds[i%len(pageKinds)], 1+rnd.IntN(20))...)
	}
	m, d := packBytes(t, content, Options{
		FrameSize: 8 * PageSize, PackSize: 100 << 10, blockShift: 5,
		Attach: map[string]io.Reader{"vmstate": strings.NewReader("registers")},
	})
	return m, d, content
}

// outcome says whether reading all of the image failed as it must, or gave the content as it must.
func outcome(t testing.TB, m *memory, d ocispec.Descriptor, content []byte) (failed bool) {
	check := func(err error) bool {
		var where *ReadError
		if err != nil && (!errors.Is(err, ErrCorrupt) || !errors.As(err, &where)) {
			t.Errorf("error is not a ReadError with ErrCorrupt: %v", err)
		}
		return err != nil
	}
	r, err := Open(t.Context(), m, d)
	if check(err) {
		return true
	}
	defer r.Close()
	for off := 0; off < len(content); off += 3 * PageSize {
		p := make([]byte, min(3*PageSize, len(content)-off))
		if err := r.ReadAt(t.Context(), p, int64(off)); check(err) {
			failed = true
		} else if !bytes.Equal(p, content[off:off+len(p)]) {
			t.Errorf("wrong content at %d", off)
		}
	}
	if verr := r.Verify(t.Context(), nil); !check(verr) && failed {
		t.Error("Verify passed an image that cannot be read")
	} else if verr != nil {
		failed = true
	}
	return failed
}

// TestFlippedBit flips any bit of any blob. Reading then fails or gives the right content, and Verify always fails.
func TestFlippedBit(t *testing.T) {
	m, d, content := damaged(t)
	if outcome(t, m, d, content) {
		t.Fatal("the image is bad before it is damaged")
	}
	digests := slices.Sorted(maps.Keys(m.blobs))
	rapid.Check(t, func(rt *rapid.T) {
		victim := rapid.SampledFrom(digests).Draw(rt, "blob")
		good := m.blobs[victim]
		at := rapid.IntRange(0, len(good)-1).Draw(rt, "byte")
		bad := bytes.Clone(good)
		bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		m.blobs[victim] = bad
		defer func() { m.blobs[victim] = good }()
		if !outcome(t, m, d, content) {
			rt.Error("nothing was found")
		}
	})
}

// TestTruncated cuts each blob at its structural boundaries, and makes it longer.
func TestTruncated(t *testing.T) {
	m, d, content := damaged(t)
	for victim, good := range maps.Clone(m.blobs) {
		for _, n := range boundaries(t, m, d, victim) {
			m.blobs[victim] = slices.Concat(good, make([]byte, 8))[:n]
			if !outcome(t, m, d, content) {
				t.Errorf("%s cut from %d to %d bytes: nothing was found", victim, len(good), n)
			}
		}
		m.blobs[victim] = good
	}
}

// boundaries gives lengths to cut a blob to.
func boundaries(t *testing.T, m *memory, d ocispec.Descriptor, victim digest.Digest) []int {
	size := len(m.blobs[victim])
	cuts := []int{0, 1, size / 2, size - 1, size + 1, size + 8}
	r := openImage(t, m, d)
	defer r.Close()
	for i, ref := range r.root.blocks {
		if ref.length == 0 {
			continue
		}
		if r.manifest.packs[ref.pack].Digest == victim {
			cuts = append(cuts, int(ref.offset)-skipHeader, int(ref.offset), int(ref.offset)+int(ref.length)-1)
		}
		b, err := r.block(t.Context(), int64(i))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range b.frames {
			if r.manifest.packs[f.pack].Digest == victim {
				cuts = append(cuts, int(f.offset), int(f.offset)+1, int(f.offset+f.stored)-1)
			}
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(cuts)))
}

// TestMissingBlob opens an image that is not all there.
func TestMissingBlob(t *testing.T) {
	m, d, _ := damaged(t)
	r := openImage(t, m, d)
	attachment := r.Attachments()[0].Descriptor.Digest
	r.Close()
	for victim, good := range maps.Clone(m.blobs) {
		if victim == attachment {
			continue // it is first wanted when it is opened
		}
		delete(m.blobs, victim)
		if _, err := Open(t.Context(), m, d); err == nil {
			t.Errorf("opened without %s", victim)
		}
		m.blobs[victim] = good
	}
	if m.opens != 0 {
		t.Errorf("%d blobs were left open", m.opens)
	}
}

// TestDamageInFlight gives bytes that are wrong only while they are read, after the image was opened.
func TestDamageInFlight(t *testing.T) {
	m, d, content := damaged(t)
	r := openImage(t, m, d)
	for _, p := range r.packs {
		b := p.(*memoryBlob)
		b.b = bytes.Clone(b.b)
		for i := range b.b {
			b.b[i] ^= 0x40
		}
	}
	for off := 0; off < len(content); off += PageSize {
		p := make([]byte, PageSize)
		err := r.ReadAt(t.Context(), p, int64(off))
		if err == nil && !bytes.Equal(p, content[off:off+PageSize]) {
			t.Fatalf("wrong content at %d", off)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	}
}

// TestStoreErrorIsKept passes what a store fails with on, and does not call it corruption.
func TestStoreErrorIsKept(t *testing.T) {
	m, d, _ := damaged(t)
	r := openImage(t, m, d)
	down := errors.New("store is down")
	m.beforeRead = func() error { return down }
	err := r.ReadAt(t.Context(), make([]byte, r.Size()), 0)
	if !errors.Is(err, down) || errors.Is(err, ErrCorrupt) {
		t.Errorf("%v, want the store's error", err)
	}
	m.beforeRead = nil
	if err := r.ReadAt(t.Context(), make([]byte, r.Size()), 0); err != nil {
		t.Errorf("after the store came back: %v", err)
	}
}
