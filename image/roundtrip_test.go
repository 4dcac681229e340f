package image

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// genContent draws rows of pages of a few kinds, so that every kind of run and frame comes about.
func genContent(t *rapid.T, maxPages int) []byte {
	rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	var content []byte
	for pages := rapid.IntRange(1, maxPages).Draw(t, "pages"); pages > 0; {
		n := min(pages, rapid.IntRange(1, 40).Draw(t, "row"))
		content = append(content, genRow(rnd, rapid.SampledFrom(pageKinds).Draw(t, "kind"), n)...)
		pages -= n
	}
	return content
}

var pageKinds = []string{"zero", "random", "text", "same", "nearly zero", "alternating"}

func genRow(rnd *rand.Rand, kind string, pages int) []byte {
	p := make([]byte, pages*PageSize)
	for i := range p {
		switch kind {
		case "random":
			p[i] = byte(rnd.Uint32())
		case "text":
			p[i] = "faultline "[rnd.IntN(10)]
		case "same":
			p[i] = 0xa5
		case "nearly zero":
			if i%PageSize == PageSize-1 {
				p[i] = 1
			}
		case "alternating":
			if i/PageSize%2 == 1 {
				p[i] = byte(i)
			}
		}
	}
	return p
}

func genOptions(t *rapid.T) Options {
	shift := rapid.IntRange(4, 7).Draw(t, "block shift")
	return Options{
		Codec:      rapid.SampledFrom([]Codec{Zstd, Raw}).Draw(t, "codec"),
		Level:      rapid.SampledFrom([]int{0, 1, 6}).Draw(t, "level"),
		FrameSize:  PageSize << rapid.IntRange(0, shift).Draw(t, "frame shift"),
		PackSize:   rapid.SampledFrom([]int64{PageSize, 40 << 10, 500 << 10, MaxPackSize}).Draw(t, "pack size"),
		blockShift: shift,
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		content, o := genContent(rt, 400), genOptions(rt)
		m, d := packBytes(t, content, o)
		r, err := Open(t.Context(), m, d)
		if err != nil {
			rt.Fatal(err)
		}
		defer r.Close()
		if r.Size() != int64(len(content)) {
			rt.Fatalf("size %d, want %d", r.Size(), len(content))
		}
		checkExtents(rt, r, content)
		for range 8 {
			off := rapid.IntRange(0, len(content)).Draw(rt, "off")
			n := rapid.IntRange(0, len(content)-off).Draw(rt, "n")
			p := bytes.Repeat([]byte{0xff}, n)
			if err := r.ReadAt(t.Context(), p, int64(off)); err != nil {
				rt.Fatal(err)
			}
			if !bytes.Equal(p, content[off:off+n]) {
				rt.Fatalf("%d bytes at %d differ", n, off)
			}
		}
		if err := r.Verify(t.Context(), nil); err != nil {
			rt.Fatal(err)
		}
		checkStats(rt, r, content)
	})
}

// checkExtents walks the image by extents, each of which must be what it says.
func checkExtents(t *rapid.T, r *Reader, content []byte) {
	ctx := context.Background()
	for off := int64(0); off < r.Size(); {
		n, zero, err := r.Extent(ctx, off)
		if err != nil {
			t.Fatal(err)
		}
		if n <= 0 || n > r.Size()-off || n%PageSize != 0 {
			t.Fatalf("extent of %d bytes at %d", n, off)
		}
		p := bytes.Repeat([]byte{0xff}, int(n))
		if err := r.ReadAt(ctx, p, off); err != nil {
			t.Fatal(err)
		}
		want := content[off : off+n]
		if !bytes.Equal(p, want) {
			t.Fatalf("extent of %d bytes at %d differs", n, off)
		}
		if zero != allZero(want) {
			t.Fatalf("extent of %d bytes at %d: zero is %v", n, off, zero)
		}
		off += n
	}
}

func allZero(p []byte) bool { return bytes.Count(p, []byte{0}) == len(p) }

func checkStats(t *rapid.T, r *Reader, content []byte) {
	s, err := r.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var zero int64
	for p := range len(content) / PageSize {
		if allZero(content[p*PageSize : (p+1)*PageSize]) {
			zero++
		}
	}
	inFrames := s.Frames[Zstd].Pages + s.Frames[Raw].Pages
	if s.ZeroPages != zero || s.StoredPages != s.Pages-zero || inFrames != s.StoredPages {
		t.Fatalf("stats %+v, %d pages are zero", s, zero)
	}
}

// TestAlignedRangeIsOneFrame holds the writer to what FrameSize promises.
func TestAlignedRangeIsOneFrame(t *testing.T) {
	content := bytes.Repeat(genRow(rand.New(rand.NewPCG(1, 2)), "alternating", 64), 4)
	m, d := packBytes(t, content, Options{})
	r := openImage(t, m, d)
	if _, _, err := r.Extent(t.Context(), 0); err != nil { // loads the index block
		t.Fatal(err)
	}
	before := m.reads
	p := make([]byte, r.FrameSize())
	if err := r.ReadAt(t.Context(), p, r.FrameSize()); err != nil {
		t.Fatal(err)
	}
	if got := m.reads - before; got != 1 {
		t.Errorf("an aligned range took %d reads, want 1", got)
	}
	if !bytes.Equal(p, content[:len(p)]) {
		t.Error("content differs")
	}
}

func TestPackIsDeterministic(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var content []byte
	for i := range 24 {
		content = append(content, genRow(rnd, pageKinds[i%len(pageKinds)], 1+rnd.IntN(60))...)
	}
	for _, level := range []int{1, 3, 6} {
		o := Options{Level: level, PackSize: 1 << 20, Attach: nil}
		_, want := packBytes(t, content, o)
		for range 3 {
			if _, got := packBytes(t, content, o); got.Digest != want.Digest {
				t.Fatalf("level %d: %s, then %s", level, want.Digest, got.Digest)
			}
		}
	}
}

// TestRepeatedPacks packs content whose packs are equal byte for byte.
func TestRepeatedPacks(t *testing.T) {
	row := genRow(rand.New(rand.NewPCG(5, 6)), "random", 16)
	content := bytes.Repeat(row, 64)
	m, d := packBytes(t, content, Options{FrameSize: 4 * PageSize, PackSize: 5 * 4 * PageSize, blockShift: 4})
	r := openImage(t, m, d)
	p := make([]byte, len(content))
	if err := r.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, content) {
		t.Error("content differs")
	}
	if n := len(r.packs); n > 8 {
		t.Errorf("%d packs, want few: they repeat", n)
	}
}

func TestConcurrentReads(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	var content []byte
	for i := range 40 {
		content = append(content, genRow(rnd, pageKinds[i%len(pageKinds)], 1+rnd.IntN(60))...)
	}
	m, d := packBytes(t, content, Options{FrameSize: 16 * PageSize, PackSize: 1 << 20, blockShift: 6})
	r := openImage(t, m, d)
	r.cache.limit = 4 << 10 // so that index blocks come and go
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(9, uint64(g)))
			for range 40 {
				off := rnd.IntN(len(content))
				p := make([]byte, min(len(content)-off, rnd.IntN(1<<19)))
				if err := r.ReadAt(t.Context(), p, int64(off)); err != nil {
					t.Error(err)
				}
				if !bytes.Equal(p, content[off:off+len(p)]) {
					t.Errorf("%d bytes at %d differ", len(p), off)
				}
			}
		})
	}
	wg.Wait()
}

// TestOneLoadForManyWaiters lets many goroutines want one index block before its load may end.
func TestOneLoadForManyWaiters(t *testing.T) {
	m, d := packBytes(t, genRow(rand.New(rand.NewPCG(1, 1)), "random", 64), Options{})
	r := openImage(t, m, d)
	before := m.reads
	release := make(chan struct{})
	m.beforeRead = func() error { <-release; return nil }
	var started, done sync.WaitGroup
	for range 16 {
		started.Add(1)
		done.Go(func() {
			started.Done()
			if _, _, err := r.Extent(t.Context(), 0); err != nil {
				t.Error(err)
			}
		})
	}
	started.Wait()
	close(release)
	done.Wait()
	if got := m.reads - before; got != 1 {
		t.Errorf("%d reads of the index block, want 1", got)
	}
}

// TestAbandonedLoad cancels the goroutine that loads a block; one that waits for it must not suffer.
func TestAbandonedLoad(t *testing.T) {
	m, d := packBytes(t, genRow(rand.New(rand.NewPCG(1, 1)), "random", 64), Options{})
	r := openImage(t, m, d)
	ctx, cancel := context.WithCancel(t.Context())
	loading := make(chan struct{})
	var once sync.Once
	m.beforeRead = func() error {
		first := false
		once.Do(func() { first = true })
		if !first {
			return nil
		}
		close(loading)
		<-ctx.Done()
		return ctx.Err()
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, _, err := r.Extent(ctx, 0); err == nil {
			t.Error("the load that was cancelled succeeded")
		}
	})
	<-loading
	wg.Go(func() {
		if _, _, err := r.Extent(t.Context(), 0); err != nil {
			t.Error(err)
		}
	})
	cancel()
	wg.Wait()
}

// TestSparseFile packs a file with holes and exports it again: the content is the same, and the holes are.
func TestSparseFile(t *testing.T) {
	dir := t.TempDir()
	in := createFile(t, filepath.Join(dir, "in"))
	const size = 1 << 30
	if err := in.Truncate(size); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(11, 12))
	written := map[int64][]byte{}
	for _, off := range []int64{4096, 300 << 20, 301<<20 + 8192, size - 4096} {
		written[off] = genRow(rnd, "random", 1)
		if _, err := in.WriteAt(written[off], off); err != nil {
			t.Fatal(err)
		}
	}
	m := newMemory()
	var reported int64
	d, err := Pack(t.Context(), m, in, -1, Options{Progress: func(done, total int64) {
		if total != size || done < reported {
			t.Errorf("progress %d of %d after %d", done, total, reported)
		}
		reported = done
	}})
	if err != nil {
		t.Fatal(err)
	}
	if reported != size {
		t.Errorf("progress ended at %d of %d", reported, size)
	}
	r := openImage(t, m, d)
	out := createFile(t, filepath.Join(dir, "out"))
	if _, err := out.WriteAt([]byte("old content"), size+5); err != nil {
		t.Fatal(err)
	}
	if err := Export(t.Context(), r, out, nil); err != nil {
		t.Fatal(err)
	}
	checkSparse(t, out, size)
	for off, want := range written {
		got := make([]byte, len(want))
		if _, err := out.ReadAt(got, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("page at %d differs", off)
		}
	}
	if s, err := r.Stats(t.Context()); err != nil || s.StoredPages != int64(len(written)) {
		t.Errorf("stats %+v, %v; want %d stored pages", s, err, len(written))
	}
}

func createFile(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func checkSparse(t *testing.T, f *os.File, size int64) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != size {
		t.Errorf("exported %d bytes, want %d", st.Size, size)
	}
	if got := st.Blocks * 512; got > 1<<20 {
		t.Errorf("the exported file takes %d bytes on disk", got)
	}
}

// TestExportToAnything exports to what is no file: zeros are written too.
func TestExportToAnything(t *testing.T) {
	content := genRow(rand.New(rand.NewPCG(1, 1)), "alternating", 300)
	m, d := packBytes(t, content, Options{})
	w := &writerAt{p: bytes.Repeat([]byte{0xff}, len(content))}
	if err := Export(t.Context(), openImage(t, m, d), w, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.p, content) {
		t.Error("content differs")
	}
}

type writerAt struct {
	mu sync.Mutex
	p  []byte
}

func (w *writerAt) WriteAt(p []byte, off int64) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return copy(w.p[off:], p), nil
}

func BenchmarkReadAt(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 1))
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	text := genRow(rnd, "text", 4096)
	for _, c := range []struct {
		codec   Codec
		kind    string
		content []byte
	}{
		{Raw, "random", genRow(rnd, "random", 4096)},
		{Zstd, "program", program[:len(program)/(256<<10)*(256<<10)]},
		{Zstd, "text", text},
		{Zstd, "zero", make([]byte, 16<<20)},
	} {
		b.Run(fmt.Sprintf("%s %s", c.codec, c.kind), func(b *testing.B) {
			m, d := packBytes(b, c.content, Options{Codec: c.codec})
			benchmarkFrames(b, m, d)
		})
	}
}

func BenchmarkPack(b *testing.B) {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	program = program[:len(program)/PageSize*PageSize]
	for _, o := range []Options{{Codec: Raw}, {Level: 1}, {Level: 3}} {
		b.Run(fmt.Sprintf("%s level %d", orDefault(o.Codec, Zstd), o.Level), func(b *testing.B) {
			b.SetBytes(int64(len(program)))
			for b.Loop() {
				if _, err := Pack(b.Context(), newMemory(), bytes.NewReader(program), -1, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchmarkFrames(b *testing.B, m *memory, d ocispec.Descriptor) {
	r := openImage(b, m, d)
	p := make([]byte, r.FrameSize())
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		if err := r.ReadAt(b.Context(), p, off); err != nil {
			b.Fatal(err)
		}
		if off += r.FrameSize(); off == r.Size() {
			off = 0
		}
	}
}
