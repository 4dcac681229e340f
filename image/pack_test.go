package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestBadInput refuses what is no image, and leaves no manifest.
func TestBadInput(t *testing.T) {
	page := make([]byte, PageSize)
	for name, c := range map[string]struct {
		content []byte
		size    int64
		o       Options
	}{
		"empty stream":        {nil, -1, Options{}},
		"size 0":              {page, 0, Options{}},
		"no whole page":       {page[:100], -1, Options{}},
		"a page and a bit":    {append(page, 1), -1, Options{}},
		"odd size":            {page, 4095, Options{}},
		"ends early":          {page, 2 * PageSize, Options{}},
		"size too large":      {page, MaxSize + PageSize, Options{}},
		"size negative":       {page, -2, Options{}},
		"codec":               {page, -1, Options{Codec: "lz4"}},
		"level":               {page, -1, Options{Level: 23}},
		"frame size":          {page, -1, Options{FrameSize: 12288}},
		"frame size small":    {page, -1, Options{FrameSize: 2048}},
		"frame size large":    {page, -1, Options{FrameSize: 4 << 20}},
		"frame size negative": {page, -1, Options{FrameSize: -4096}},
		"pack size":           {page, -1, Options{PackSize: MaxPackSize + 1}},
		"segment outside":     {page, -1, Options{Segments: []Segment{{Name: "m", Length: 2 * PageSize}}}},
		"segment unnamed":     {page, PageSize, Options{Segments: []Segment{{Length: PageSize}}}},
		"attachment's name":   {page, -1, Options{Attach: map[string]io.Reader{"../x": strings.NewReader("")}}},
		"attachment's read":   {page, -1, Options{Attach: map[string]io.Reader{"x": iotest.ErrReader(ErrBadInput)}}},
		"creator's name":      {page, -1, Options{CreatedBy: strings.Repeat("x", 257)}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Pack(t.Context(), newMemory(), bytes.NewReader(c.content), c.size, c.o)
			if !errors.Is(err, ErrBadInput) {
				t.Errorf("%v, want ErrBadInput", err)
			}
		})
	}
}

// TestOddSize says how much was there, and what would do.
func TestOddSize(t *testing.T) {
	for size, want := range map[int]string{
		0: "the input is empty", 100: "100 bytes, which is not a multiple of 4096", 4097: "4097 bytes, which is not a multiple of 4096: the nearest are 4096 and 8192",
		1<<20 - 1: "1048575 bytes, which is not a multiple of 4096: the nearest are 1044480 and 1048576",
	} {
		f := createFile(t, filepath.Join(t.TempDir(), "odd"))
		if err := f.Truncate(int64(size)); err != nil {
			t.Fatal(err)
		}
		for name, src := range map[string]io.Reader{"file": f, "stream": bytes.NewReader(make([]byte, size))} {
			_, err := Pack(t.Context(), newMemory(), src, -1, Options{FrameSize: 8192})
			if !errors.Is(err, ErrBadInput) || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%s of %d bytes: %v, want %q", name, size, err, want)
			}
		}
	}
}

// TestShortFile has a file that ends before the size that was asked for, in data and in a hole.
func TestShortFile(t *testing.T) {
	for name, size := range map[string]int64{"data": 4 * PageSize, "hole": 1 << 20} {
		f := createFile(t, filepath.Join(t.TempDir(), name))
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if name == "data" {
			if _, err := f.WriteAt(bytes.Repeat([]byte{1}, int(size)), 0); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Pack(t.Context(), newMemory(), f, size+PageSize, Options{}); !errors.Is(err, ErrBadInput) {
			t.Errorf("%s: %v, want ErrBadInput", name, err)
		}
	}
}

// TestFileFromOffset packs a part of a file, from where it stands.
func TestFileFromOffset(t *testing.T) {
	content := genRow(rand.New(rand.NewPCG(1, 2)), "alternating", 50)
	f := createFile(t, filepath.Join(t.TempDir(), "in"))
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	const off, size = 100, 20 * PageSize
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	m := newMemory()
	d, err := Pack(t.Context(), m, f, size, Options{FrameSize: 4 * PageSize})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, size)
	if err := openImage(t, m, d).ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, content[off:off+size]) {
		t.Error("content differs")
	}
	if at, _ := f.Seek(0, io.SeekCurrent); at != off+size {
		t.Errorf("the file stands at %d, want %d", at, off+size)
	}
}

// TestShortReads packs a stream that gives a byte, or half of what is asked, at a time.
func TestShortReads(t *testing.T) {
	content := genRow(rand.New(rand.NewPCG(1, 2)), "text", 9)
	for name, src := range map[string]io.Reader{
		"byte": iotest.OneByteReader(bytes.NewReader(content)),
		"half": iotest.HalfReader(bytes.NewReader(content)),
		"eof":  iotest.DataErrReader(bytes.NewReader(content)),
	} {
		m := newMemory()
		d, err := Pack(t.Context(), m, src, -1, Options{FrameSize: 4 * PageSize})
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, len(content))
		if err := openImage(t, m, d).ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, content) {
			t.Errorf("%s: content differs, %v", name, err)
		}
	}
}

// endless gives random pages for ever and counts what was taken.
type endless struct {
	rnd   *rand.ChaCha8
	taken atomic.Int64
}

func (e *endless) Read(p []byte) (int, error) {
	e.taken.Add(int64(len(p)))
	return e.rnd.Read(p)
}

// TestBoundedInFlight blocks the store. What is then read of an endless input is what Pack holds in memory, and no more.
func TestBoundedInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := newMemory()
		m.beforeWrite = func([]byte) error { <-ctx.Done(); return ctx.Err() }
		src := &endless{rnd: rand.NewChaCha8([32]byte{1})}
		o := Options{FrameSize: MaxFrameSize, Codec: Raw}
		done := make(chan error)
		go func() {
			_, err := Pack(ctx, m, src, -1, o)
			done <- err
		}()
		synctest.Wait()
		limit := int64(chunksInFlight(&o)) * o.FrameSize
		if got := src.taken.Load(); got > limit {
			t.Errorf("%d bytes were read ahead, at most %d may", got, limit)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
	})
}

// TestPackMemory packs more than it may hold, and looks at the heap with every write.
func TestPackMemory(t *testing.T) {
	const size, limit = 200 << 20, 256 << 20
	d := &discard{}
	debug.FreeOSMemory() // what other tests left is not counted
	before := heapInUse()
	src := io.LimitReader(&endless{rnd: rand.NewChaCha8([32]byte{1})}, size)
	if _, err := Pack(t.Context(), d, src, -1, Options{FrameSize: MaxFrameSize, Level: 1}); err != nil {
		t.Fatal(err)
	}
	if d.written < size {
		t.Errorf("%d bytes were written", d.written)
	}
	if grown := d.peak - min(before, d.peak); grown > limit {
		t.Errorf("the heap grew by %d MiB from %d", grown>>20, before>>20)
	}
}

func heapInUse() uint64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapInuse
}

// discard is a stage that keeps nothing but figures.
type discard struct {
	written int64
	peak    uint64 // bytes of heap in use
}

func (d *discard) Create(context.Context) (BlobWriter, error) {
	return &discardWriter{d: d, hash: sha256.New()}, nil
}

type discardWriter struct {
	d    *discard
	hash hash.Hash
	size int64
}

func (w *discardWriter) Write(p []byte) (int, error) {
	w.d.peak = max(w.d.peak, heapInUse())
	w.size += int64(len(p))
	w.d.written += int64(len(p))
	return w.hash.Write(p)
}

func (w *discardWriter) Commit(_ context.Context, mediaType string) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.NewDigest(digest.SHA256, w.hash), Size: w.size}, nil
}

func (w *discardWriter) Abort() error { return nil }

// TestStoreFails fails every write in turn. Pack passes the error on, and all it started ends.
func TestStoreFails(t *testing.T) {
	content := genRow(rand.New(rand.NewPCG(1, 2)), "random", 200)
	full := errors.New("store is full")
	for fail := 1; ; fail++ {
		m, writes := newMemory(), 0
		m.beforeWrite = func([]byte) error {
			if writes++; writes == fail {
				return full
			}
			return nil
		}
		_, err := Pack(t.Context(), m, bytes.NewReader(content), -1, Options{FrameSize: 8 * PageSize, PackSize: 200 << 10, blockShift: 5})
		if err == nil {
			if fail < 5 {
				t.Errorf("only %d writes", fail-1)
			}
			return
		}
		if !errors.Is(err, full) {
			t.Fatalf("write %d: %v, want the store's error", fail, err)
		}
	}
}

// TestSourceFails breaks the input off.
func TestSourceFails(t *testing.T) {
	broken := errors.New("pipe broke")
	src := io.MultiReader(bytes.NewReader(make([]byte, 3<<20)), iotest.ErrReader(broken))
	if _, err := Pack(t.Context(), newMemory(), src, -1, Options{}); !errors.Is(err, broken) {
		t.Errorf("%v, want the input's error", err)
	}
}

// TestConfigAndAttachments come back as they were given.
func TestConfigAndAttachments(t *testing.T) {
	o := Options{
		Segments:  []Segment{{"low", 0, PageSize, 0}, {"high", 1 << 40, PageSize, PageSize}},
		Created:   time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
		CreatedBy: "test",
		Attach:    map[string]io.Reader{"vmstate": strings.NewReader("registers"), "empty": strings.NewReader("")},
	}
	m, d := packBytes(t, make([]byte, 2*PageSize), o)
	r := openImage(t, m, d)
	want := Config{Size: 2 * PageSize, PageSize: PageSize, Segments: o.Segments, Created: o.Created, CreatedBy: "test"}
	if diff := cmp.Diff(want, r.Config()); diff != "" {
		t.Error(diff)
	}
	if len(r.packs) != 0 {
		t.Errorf("zeros take %d packs", len(r.packs))
	}
	for name, want := range map[string]string{"vmstate": "registers", "empty": ""} {
		a, err := r.OpenAttachment(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(a)
		if err != nil || string(got) != want {
			t.Errorf("attachment %s is %q, %v", name, got, err)
		}
		a.Close()
	}
	if _, err := r.OpenAttachment(t.Context(), "other"); !errors.Is(err, ErrBadInput) {
		t.Errorf("%v, want ErrBadInput", err)
	}
	if n := len(r.Attachments()); n != 2 {
		t.Errorf("%d attachments", n)
	}
}

// TestRangesAndClose asks for what is outside, and after the end.
func TestRangesAndClose(t *testing.T) {
	m, d := packBytes(t, genRow(rand.New(rand.NewPCG(1, 2)), "random", 4), Options{})
	r := openImage(t, m, d)
	for _, c := range []struct {
		off int64
		n   int
	}{{-1, 1}, {0, 4*PageSize + 1}, {4 * PageSize, 1}, {4*PageSize + 1, 0}, {1 << 62, 1}, {-1 << 63, 1}} {
		if err := r.ReadAt(t.Context(), make([]byte, c.n), c.off); !errors.Is(err, ErrBadInput) {
			t.Errorf("%d bytes at %d: %v, want ErrBadInput", c.n, c.off, err)
		}
	}
	if err := r.ReadAt(t.Context(), nil, 4*PageSize); err != nil {
		t.Errorf("nothing at the end: %v", err)
	}
	if _, _, err := r.Extent(t.Context(), r.Size()); !errors.Is(err, ErrBadInput) {
		t.Errorf("extent at the end: %v, want ErrBadInput", err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	if err := r.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	if m.opens != 0 {
		t.Errorf("%d blobs were left open", m.opens)
	}
}

// TestNoAllocations reads whole frames into memory of the caller's.
func TestNoAllocations(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, kind := range []string{"random", "text", "zero"} {
		m, d := packBytes(t, genRow(rnd, kind, 64), Options{})
		r := openImage(t, m, d)
		p := make([]byte, r.FrameSize())
		ctx := t.Context()
		read := func() {
			if err := r.ReadAt(ctx, p, 0); err != nil {
				t.Fatal(err)
			}
		}
		read()
		if n := testing.AllocsPerRun(50, read); n >= 1 && !raceEnabled {
			t.Errorf("%s: %v allocations a read", kind, n)
		}
	}
}
