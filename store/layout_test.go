package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"faultline/image"
)

func TestRoundTrip(t *testing.T) {
	l := newLayout(t)
	want := content(300)
	packTagged(t, l, "team/app:v1", want)
	again, err := OpenLayout(l.Dir())
	if err != nil {
		t.Fatal(err)
	}
	ref := mustParse(t, "team/app:v1")
	d, err := again.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []Ref{ref, {Name: "any", Digest: d.Digest}} {
		got, err := readTagged(t.Context(), again, ref)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: content differs, %v", ref, err)
		}
	}
	files(t, l.Dir())
	if left := staged(t, l); len(left) > 0 {
		t.Errorf("left in %s: %v", stageDir, left)
	}
}

func TestTagListResolve(t *testing.T) {
	l := newLayout(t)
	packTagged(t, l, "b", content(20))
	packTagged(t, l, "a:1", content(10))
	packTagged(t, l, "b", content(30)) // moves the name
	list, err := l.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Ref.String())
		d, err := l.Resolve(t.Context(), e.Ref)
		if err != nil || d.Digest != e.Manifest.Digest {
			t.Errorf("%s resolves to %s, %v; is listed as %s", e.Ref, d.Digest, err, e.Manifest.Digest)
		}
		if e.Manifest.ArtifactType != image.ArtifactType {
			t.Errorf("%s is listed as a %q", e.Ref, e.Manifest.ArtifactType)
		}
	}
	if got := strings.Join(names, " "); got != "a:1 b:latest" {
		t.Errorf("listed %s", got)
	}
	if got, err := readTagged(t.Context(), l, mustParse(t, "b")); err != nil || len(got) != 30*image.PageSize {
		t.Errorf("b has %d bytes, %v", len(got), err)
	}
	if err := l.Tag(t.Context(), mustParse(t, "c"), ocispec.Descriptor{Digest: digest.FromString("no"), Size: 2}); !errors.Is(err, ErrNotFound) {
		t.Errorf("tagging what is not there: %v, want ErrNotFound", err)
	}
	if err := l.Tag(t.Context(), Ref{Name: "c", Digest: list[0].Manifest.Digest}, list[0].Manifest); !errors.Is(err, ErrBadRef) {
		t.Errorf("tagging a digest: %v, want ErrBadRef", err)
	}
}

func TestNotFound(t *testing.T) {
	l := newLayout(t)
	check := func(what string, err error, text string) {
		t.Helper()
		if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want ErrNotFound that says %q", what, err, text)
		}
	}
	_, err := l.List(t.Context())
	check("List", err, "no store at "+l.Dir())
	_, err = l.Resolve(t.Context(), mustParse(t, "a"))
	check("Resolve", err, "no store at "+l.Dir())
	_, err = l.OpenBlob(t.Context(), ocispec.Descriptor{Digest: digest.FromString("x")})
	check("OpenBlob", err, "no store at "+l.Dir())
	if len(files(t, l.Dir())) > 0 {
		t.Error("reading made files")
	}
	packTagged(t, l, "a", content(1))
	_, err = l.Resolve(t.Context(), mustParse(t, "b"))
	check("Resolve", err, "b:latest")
	_, err = l.Resolve(t.Context(), Ref{Name: "a", Digest: digest.FromString("x")})
	check("Resolve by digest", err, digest.FromString("x").String())
}

// TestNotAStore keeps its hands off a directory of something else.
func TestNotAStore(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLayout(dir); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a directory with other things: %v", err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"2.0.0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLayout(dir); !errors.Is(err, ErrUnsupported) {
		t.Errorf("another version: %v, want ErrUnsupported", err)
	}
}

// TestDamagedOnDisk flips bits of files. Nothing wrong comes out.
func TestDamagedOnDisk(t *testing.T) {
	l := newLayout(t)
	want := content(100)
	packTagged(t, l, "a", want)
	rnd := rand.New(rand.NewPCG(1, 2))
	for name, size := range files(t, l.Dir()) {
		if filepath.Dir(name) != blobDir {
			continue
		}
		for range 20 {
			at := rnd.Int64N(size)
			flip(t, l.path(name), at)
			got, err := readTagged(t.Context(), l, mustParse(t, "a"))
			if err == nil && !bytes.Equal(got, want) || err != nil && !errors.Is(err, image.ErrCorrupt) {
				t.Errorf("byte %d of %s: %v", at, name, err)
			}
			flip(t, l.path(name), at)
		}
	}
}

func flip(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// TestBatch: a blob is seen when its batch is published, not before; and not at all after Abort.
func TestBatch(t *testing.T) {
	l := newLayout(t)
	batch := begin(t, l)
	w, err := batch.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "hello"); err != nil {
		t.Fatal(err)
	}
	d := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString("hello"), Size: 5}
	if _, err := l.OpenBlob(t.Context(), d); !errors.Is(err, ErrNotFound) {
		t.Errorf("before Commit: %v, want ErrNotFound", err)
	}
	got, err := w.Commit(t.Context(), "text/plain")
	if err != nil || got.Digest != d.Digest || got.Size != 5 || got.MediaType != "text/plain" {
		t.Errorf("committed %+v, %v", got, err)
	}
	if err := w.Abort(); err != nil {
		t.Errorf("Abort after Commit: %v", err)
	}
	if _, err := l.OpenBlob(t.Context(), d); !errors.Is(err, ErrNotFound) {
		t.Errorf("before Publish: %v, want ErrNotFound", err)
	}
	if err := errors.Join(batch.Publish(t.Context()), batch.Abort()); err != nil {
		t.Fatal(err)
	}
	b, err := l.OpenBlob(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p := make([]byte, 5)
	if err := b.ReadAt(t.Context(), p, 0); err != nil || string(p) != "hello" {
		t.Errorf("read %q, %v", p, err)
	}
	if err := b.ReadAt(t.Context(), p, 1); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read past the end: %v", err)
	}
	d.Size = 6
	if _, err := l.OpenBlob(t.Context(), d); !errors.Is(err, image.ErrCorrupt) {
		t.Errorf("blob of another size: %v, want ErrCorrupt", err)
	}
	if w, err = batch.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Abort(), w.Abort()); err != nil {
		t.Error(err)
	}
	if _, err := w.Commit(t.Context(), "text/plain"); err == nil {
		t.Error("committed after Abort")
	}
	if left := staged(t, l); len(left) > 0 {
		t.Errorf("left in %s: %v", stageDir, left)
	}
}

// TestAbortedBatch leaves nothing, and another batch with the same blob is not hurt.
func TestAbortedBatch(t *testing.T) {
	l := newLayout(t)
	first, second := begin(t, l), begin(t, l)
	for _, b := range []*Batch{first, second} {
		w, err := b.Create(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(t.Context(), "text/plain"); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(first.Abort(), first.Abort(), second.Publish(t.Context())); err != nil {
		t.Fatal(err)
	}
	b, err := l.OpenBlob(t.Context(), ocispec.Descriptor{Digest: digest.FromString("hello"), Size: 5})
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if left := staged(t, l); len(left) > 0 {
		t.Errorf("left in %s: %v", stageDir, left)
	}
}

// TestFailedPublish: what can't be published whole is taken back, but for what was there before.
func TestFailedPublish(t *testing.T) {
	l := newLayout(t)
	old, fresh, last := digest.FromString("old"), digest.FromString("fresh"), digest.FromString("last")
	stageAll := func(contents ...string) *Batch {
		t.Helper()
		b := begin(t, l)
		for _, content := range contents {
			w, err := b.Create(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, content); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Commit(t.Context(), "text/plain"); err != nil {
				t.Fatal(err)
			}
		}
		return b
	}
	if err := stageAll("old").Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := files(t, l.Dir())
	if err := os.Mkdir(l.path(filepath.Join(blobDir, last.Encoded())), dirMode); err != nil { // in the way
		t.Fatal(err)
	}
	ref, manifest := mustParse(t, "a"), ocispec.Descriptor{Digest: last, Size: 4}
	for name, publish := range map[string]func(*Batch) error{
		"Publish":         func(b *Batch) error { return b.Publish(t.Context()) },
		"PublishAs":       func(b *Batch) error { return b.PublishAs(t.Context(), ref, manifest) },
		"of no such name": func(b *Batch) error { return b.PublishAs(t.Context(), Ref{Name: "a", Digest: last}, manifest) },
		"of another's image": func(b *Batch) error {
			return b.PublishAs(t.Context(), ref, ocispec.Descriptor{Digest: digest.FromString("x")})
		},
	} {
		b := stageAll("old", "fresh", "last", "never reached")
		if err := publish(b); err == nil {
			t.Errorf("%s succeeded", name)
		}
		if err := b.Abort(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if after := files(t, l.Dir()); !maps.Equal(before, after) {
			t.Errorf("%s: the store has %v, had %v (%s, %s)", name, after, before, old, fresh)
		}
	}
}

// TestInterruptedPack leaves nothing, though several packs were complete.
func TestInterruptedPack(t *testing.T) {
	l := newLayout(t)
	packTagged(t, l, "good", content(10))
	before := files(t, l.Dir())
	ctx, cancel := context.WithCancel(t.Context())
	o := image.Options{PackSize: 64 << 10, FrameSize: 32 << 10, Progress: func(done, _ int64) {
		if done >= 150*image.PageSize {
			cancel()
		}
	}}
	if _, err := l.PackAs(ctx, mustParse(t, "large"), bytes.NewReader(content(200)), -1, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("pack: %v, want context.Canceled", err)
	}
	if after := files(t, l.Dir()); !maps.Equal(before, after) {
		t.Errorf("the store has %v, had %v", after, before)
	}
}

// TestHostileDigest asks for blobs outside the store.
func TestHostileDigest(t *testing.T) {
	l := newLayout(t)
	packTagged(t, l, "a", content(1))
	for _, d := range []digest.Digest{"", "sha256:", "sha256:../../index.json", "../index.json", digest.Digest("sha256:" + strings.Repeat("A", 64))} {
		if _, err := l.OpenBlob(t.Context(), ocispec.Descriptor{Digest: d}); !errors.Is(err, image.ErrBadInput) {
			t.Errorf("%q: %v, want ErrBadInput", d, err)
		}
	}
}

// TestTagsOfManyWriters has goroutines and processes tag at once. No tag is lost.
func TestTagsOfManyWriters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	first, second := startChild(t, "first", dir), startChild(t, "second", dir)
	var wg sync.WaitGroup
	for _, who := range []string{"third", "fourth"} {
		wg.Go(func() {
			l, err := OpenLayout(dir)
			if err == nil {
				err = tagMany(t.Context(), l, who)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(first.Wait(), second.Wait()); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := l.List(t.Context())
	if err != nil || len(list) != 4*tagsEach {
		t.Errorf("%d tags, want %d: %v", len(list), 4*tagsEach, err)
	}
	for _, e := range list {
		if _, err := l.Resolve(t.Context(), e.Ref); err != nil {
			t.Error(err)
		}
	}
}

// TestSweep removes what a dead process left, and nothing of one that lives.
func TestSweep(t *testing.T) {
	l := newLayout(t)
	if err := startChild(t, "die", l.Dir()).Wait(); err != nil {
		t.Fatal(err)
	}
	dead := staged(t, l)
	if len(dead) != 2 {
		t.Fatalf("the dead process left %v, want two files", dead)
	}
	batch := begin(t, l)
	w, err := batch.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other, err := OpenLayout(l.Dir())
	if err != nil {
		t.Fatal(err)
	}
	packTagged(t, other, "a", content(1)) // sweeps
	if now := staged(t, l); len(now) != 1 || slices.Contains(dead, now[0]) {
		t.Errorf("after two sweeps: %v, want the living writer's only", now)
	}
	if _, err := w.Commit(t.Context(), "text/plain"); err != nil {
		t.Error(err)
	}
}

// TestForeignIndex keeps what other tools wrote into index.json.
func TestForeignIndex(t *testing.T) {
	l := newLayout(t)
	packTagged(t, l, "a", content(1))
	index := []byte(`{"schemaVersion":2,"manifests":[
		{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digest.FromString("x").String() + `","size":1,
		 "platform":{"architecture":"arm64","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"Not Ours","k":"v"}}],"annotations":{"a":"b"}}`)
	if err := os.WriteFile(l.path("index.json"), index, fileMode); err != nil {
		t.Fatal(err)
	}
	packTagged(t, l, "b", content(2))
	x, err := l.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Manifests) != 2 || x.Manifests[0].Annotations["k"] != "v" || x.Manifests[0].Platform.Architecture != "arm64" || x.Annotations["a"] != "b" {
		t.Errorf("%+v", x)
	}
	if list, err := l.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("listed %v, %v", list, err)
	}
}

func TestDefaultDir(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/data")
	if dir, err := DefaultDir(); dir != "/data/faultline" || err != nil {
		t.Errorf("%s, %v", dir, err)
	}
	t.Setenv("XDG_DATA_HOME", "")
	t.Setenv("HOME", "/home/u")
	if dir, err := DefaultDir(); dir != "/home/u/.local/share/faultline" || err != nil {
		t.Errorf("%s, %v", dir, err)
	}
}
