package image

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

var update = flag.Bool("update", false, "write the fuzz targets' seed corpora")

// seeds gives each fuzz target's corpus: good values, and some that are nearly good.
func seeds(t *testing.T) map[string][][]byte {
	root, block := sampleRoot().append(nil), encodeSampleBlock(sampleBlock())
	config := []byte(`{"size":8192,"pageSize":4096,"segments":[{"name":"m","address":0,"length":8192,"offset":0}],"created":"2026-01-31T12:00:00Z","createdBy":"x"}`)
	manifest := sampleManifest()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	frame := enc.EncodeAll(bytes.Repeat([]byte("page"), PageSize/4), nil)
	all := map[string][][]byte{"FuzzRoot": {root}, "FuzzBlock": {block}, "FuzzConfig": {config}, "FuzzManifest": {manifest}, "FuzzFrame": {frame}}
	for name, corpus := range all {
		good := corpus[0]
		flipped := bytes.Clone(good)
		flipped[len(flipped)/2] ^= 0x80
		all[name] = append(corpus, good[:len(good)/2], append(bytes.Clone(good), 0), flipped)
	}
	return all
}

// TestCorpora fails where a fuzz target has no seeds. With -update it writes them.
func TestCorpora(t *testing.T) {
	for name, corpus := range seeds(t) {
		dir := filepath.Join("testdata", "fuzz", name)
		if *update {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for i, b := range corpus {
				content := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", b)
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("seed%d", i)), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) < len(corpus) {
			t.Errorf("%s has %d seeds, want %d: %v", name, len(entries), len(corpus), err)
		}
	}
}

// FuzzRoot: what parses is canonical, and every place is inside its pack.
func FuzzRoot(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRoot(b)
		if err != nil {
			return
		}
		if !bytes.Equal(r.append(nil), b) {
			t.Error("encodes to something else")
		}
		for i, e := range r.blocks {
			if n := r.blockPages(int64(i)); n < 1 || n > 1<<r.blockShift {
				t.Errorf("block %d has %d pages", i, n)
			}
			if e.length > 0 && int64(e.offset)+int64(e.length) > r.packs[e.pack].size {
				t.Errorf("block %d is outside its pack", i)
			}
		}
	})
}

// FuzzBlock: every page of a block that parses has one place, inside its frame and pack; and it encodes to what parses to the same.
func FuzzBlock(f *testing.F) {
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := parseBlock(p, 16, sampleTable())
		if err != nil {
			return
		}
		for page := range 16 {
			r, end := b.find(page)
			if int(r.start) > page || end <= page || end > 16 {
				t.Fatalf("page %d is in run %d…%d", page, r.start, end)
			}
			if r.kind == 0 {
				continue
			}
			f := b.frames[r.kind-1]
			if int(r.first)+end-int(r.start) > int(f.pages) || int64(f.offset)+int64(f.stored) > sampleTable().packs[f.pack].size {
				t.Fatalf("run at %d is outside its frame, or that outside its pack", r.start)
			}
		}
		again, err := parseBlock(encodeSampleBlock(b), 16, sampleTable())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b, again, cmp.AllowUnexported(block{}, frame{}, run{})); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseConfig(b)
		if err != nil {
			return
		}
		for _, s := range c.Segments {
			if s.Offset < 0 || s.Length <= 0 || s.Offset+s.Length > c.Size || s.Address+uint64(s.Length)-1 < s.Address {
				t.Errorf("segment %+v in %d bytes", s, c.Size)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			return
		}
		if n := 1 + len(m.packs) + len(m.attachments); n != len(m.raw.Layers) {
			t.Errorf("%d of %d layers", n, len(m.raw.Layers))
		}
		for _, d := range m.raw.Layers {
			if d.Size < 0 || d.Digest.Validate() != nil {
				t.Errorf("layer %+v", d)
			}
		}
	})
}

// FuzzFrame: decoding fills its page and nothing else, or fails.
func FuzzFrame(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		guarded := make([]byte, 2*PageSize)
		unzstd(guarded[:PageSize], b)
		if !allZero(guarded[PageSize:]) {
			t.Error("written behind the end")
		}
	})
}
