package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sampleRoot is a root with one stored and two zero blocks.
func sampleRoot() *root {
	return &root{
		pages: 40, blockShift: 4, frameShift: 2,
		packs:  []packRef{{sum{1}, 1 << 20}, {sum{2}, 2 << 20}},
		blocks: []blockRef{{}, {pack: 1, offset: 4096, length: 100, sum: sum{3}}, {}},
	}
}

func sampleTable() packTable {
	r := sampleRoot()
	return packTable{own: 0, packs: r.packs, bySum: map[sum]uint32{{1}: 0, {2}: 1}}
}

// sampleBlock is a block with a frame in each of two packs, zeros, and a page that is used twice.
func sampleBlock() *block {
	return &block{
		pages: 16,
		frames: []frame{
			{pack: 0, offset: 0, stored: 4 * PageSize, pages: 4, sum: sum{5}},
			{pack: 1, offset: 9999, stored: 500, pages: 8, codec: codecZstd, sum: sum{6}},
		},
		runs: []run{{0, 1, 0}, {4, 0, 0}, {6, 2, 1}, {10, 2, 1}, {11, 0, 0}},
	}
}

func encodeSampleBlock(b *block) []byte { return b.append(nil, 0, sampleRoot().packs) }

func TestSamplesAreGood(t *testing.T) {
	if _, err := parseRoot(sampleRoot().append(nil)); err != nil {
		t.Error(err)
	}
	if _, err := parseBlock(encodeSampleBlock(sampleBlock()), 16, sampleTable()); err != nil {
		t.Error(err)
	}
}

func TestHostileRoot(t *testing.T) {
	for name, change := range map[string]func(*root){
		"no pages":                 func(r *root) { r.pages = 0 },
		"too many pages":           func(r *root) { r.pages = MaxSize/PageSize + 1 },
		"pages overflow":           func(r *root) { r.pages = math.MinInt64 },
		"more blocks than entries": func(r *root) { r.pages = 1000 },
		"fewer blocks":             func(r *root) { r.pages = 1 },
		"too many blocks":          func(r *root) { r.pages = (maxBlocks + 1) << 4; r.blocks = make([]blockRef, maxBlocks+1) },
		"block shift low":          func(r *root) { r.blockShift = 3 },
		"block shift high":         func(r *root) { r.blockShift = 63 },
		"frame shift above":        func(r *root) { r.frameShift = 5 },
		"frame shift high":         func(r *root) { r.frameShift = 64 },
		"same pack twice":          func(r *root) { r.packs[1].sum = r.packs[0].sum },
		"pack too large":           func(r *root) { r.packs[0].size = MaxPackSize + 1 },
		"pack empty":               func(r *root) { r.packs[0].size = 0 },
		"pack size overflow":       func(r *root) { r.packs[0].size = -1 },
		"too many packs":           func(r *root) { r.packs = make([]packRef, maxPacks+1) },
		"block too long":           func(r *root) { r.blocks[1].length = maxBlockSize + 1 },
		"block past its pack":      func(r *root) { r.blocks[1].offset = 2<<20 - 99 },
		"block far past":           func(r *root) { r.blocks[1].offset = math.MaxUint32 },
		"block in no pack":         func(r *root) { r.blocks[1].pack = 2 },
		"block but no packs":       func(r *root) { r.packs = nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := sampleRoot()
			change(r)
			if _, err := parseRoot(r.append(nil)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v, want ErrCorrupt", err)
			}
		})
	}
}

func TestHostileBlock(t *testing.T) {
	for name, change := range map[string]func(*block){
		"other length":          func(b *block) { b.pages = 17 },
		"frame past its pack":   func(b *block) { b.frames[1].offset = 2<<20 - 499 },
		"frame far past":        func(b *block) { b.frames[1].offset = math.MaxUint32 },
		"frame empty":           func(b *block) { b.frames[1].stored = 0 },
		"frame stored too long": func(b *block) { b.frames[1].stored = MaxFrameSize + 1 },
		"frame of no pages":     func(b *block) { b.frames[1].pages = 0 },
		"frame too large":       func(b *block) { b.frames[1].pages = maxFramePages + 1 },
		"raw frame too short":   func(b *block) { b.frames[0].stored-- },
		"zstd frame that grew":  func(b *block) { b.frames[1].stored = 8 * PageSize },
		"run of no frame":       func(b *block) { b.runs[0].kind = 3 },
		"run past its frame":    func(b *block) { b.runs[2].first = 5 },
		"run far past":          func(b *block) { b.runs[2].first = math.MaxUint16 },
		"run longer than frame": func(b *block) { b.runs[1].kind, b.runs = 1, append(b.runs[:2], b.runs[4]) },
		"runs short":            func(b *block) { b.runs[4].start = 17 },
		"empty run":             func(b *block) { b.runs[1].start = 0 },
		"no runs":               func(b *block) { b.runs = nil },
	} {
		t.Run(name, func(t *testing.T) {
			b := sampleBlock()
			change(b)
			if _, err := parseBlock(encodeSampleBlock(b), 16, sampleTable()); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v, want ErrCorrupt", err)
			}
		})
	}
	t.Run("unknown pack", func(t *testing.T) {
		table := sampleTable()
		delete(table.bySum, sum{2})
		if _, err := parseBlock(encodeSampleBlock(sampleBlock()), 16, table); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
	})
}

func TestUnsupported(t *testing.T) {
	transform, codec := sampleBlock(), sampleBlock()
	transform.frames[0].transform = 1
	codec.frames[1].codec = 2
	next := encodeSampleBlock(sampleBlock())
	next[7] = 2
	for name, b := range map[string][]byte{"transform": encodeSampleBlock(transform), "codec": encodeSampleBlock(codec), "version": next} {
		if _, err := parseBlock(b, 16, sampleTable()); !errors.Is(err, ErrUnsupported) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrUnsupported", name, err)
		}
	}
}

// TestNumbers holds the decoder to shortest forms, limits and the buffer's end.
func TestNumbers(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":         {},
		"ends early":    {0x80},
		"not shortest":  {0x85, 0x00},
		"above limit":   binary.AppendUvarint(nil, 11),
		"below limit":   {0},
		"over 64 bits":  bytes.Repeat([]byte{0xff}, 11),
		"largest there": binary.AppendUvarint(nil, math.MaxUint64),
	} {
		d := &decoder{b: b}
		if v := d.uvarint(1, 10, "number"); v != 0 || !errors.Is(d.err, ErrCorrupt) {
			t.Errorf("%s: %d, %v", name, v, d.err)
		}
	}
}

// TestCutEverywhere cuts root and block at every byte, and adds one.
func TestCutEverywhere(t *testing.T) {
	r, b := sampleRoot().append(nil), encodeSampleBlock(sampleBlock())
	for n := range r {
		if _, err := parseRoot(r[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("root of %d bytes: %v", n, err)
		}
	}
	for n := range b {
		if _, err := parseBlock(b[:n], 16, sampleTable()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("block of %d bytes: %v", n, err)
		}
	}
	if _, err := parseRoot(append(r, 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("root with a byte more: %v", err)
	}
	if _, err := parseBlock(append(b, 0), 16, sampleTable()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("block with a byte more: %v", err)
	}
}

// TestHostileZstd has frames whose digest is right and whose content is not.
func TestHostileZstd(t *testing.T) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	frame := func(n int) []byte { return enc.EncodeAll(make([]byte, n), nil) }
	for name, src := range map[string][]byte{
		"empty":                 {},
		"garbage":               []byte("no zstd at all"),
		"a byte short":          frame(4*PageSize - 1),
		"a byte long":           frame(4*PageSize + 1),
		"a bomb":                frame(256 << 20),
		"two frames too many":   append(frame(4*PageSize), frame(1)...),
		"cut":                   frame(4 * PageSize)[:10],
		"claims a huge content": {0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0, 0},
		"claims a huge window":  {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dst := make([]byte, 4*PageSize, 8*PageSize)
			if err := unzstd(dst, src); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v, want ErrCorrupt", err)
			}
			if !allZero(dst[len(dst):cap(dst)]) {
				t.Error("written behind the end")
			}
		})
	}
}

func TestHostileConfig(t *testing.T) {
	const good = `{"size":8192,"pageSize":4096,"segments":[{"name":"m","address":0,"length":8192,"offset":0}]}`
	if _, err := parseConfig([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`8192,"p`, `0,"p`}, {`8192,"p`, `-4096,"p`}, {`8192,"p`, `8191,"p`}, {`8192,"p`, `9223372036854771712,"p`},
		{`8192,"p`, `1e30,"p`}, {`8192,"p`, `"8192","p`},
		{`4096`, `2097152`}, {`"pageSize":4096,`, ``}, {`"pageSize"`, `"extra":1,"pageSize"`},
		{`"size":8192`, `"size":4096,"size":8192`}, {`"size":8192`, `"Size":4096,"size":8192`},
		{`"m"`, `""`}, {`"m"`, `"a\nb"`}, {`"m"`, `"` + strings.Repeat("x", 257) + `"`},
		{`"address":0`, `"address":1`}, {`"address":0`, `"address":18446744073709547520`}, {`"address":0`, `"address":-4096`},
		{`"length":8192`, `"length":0`}, {`"length":8192`, `"length":12288`}, {`"length":8192`, `"length":-8192`},
		{`"offset":0`, `"offset":4096`}, {`"offset":0`, `"offset":-4096`}, {`"offset":0`, `"offset":9223372036854771712`},
		{`}]}`, `}]}{}`}, {`}]}`, `}]`}, {`}]}`, `},{"name":"m","address":0,"length":4096,"offset":0}]}`},
		{good, `null`}, {good, ``}, {good, `[]`}, {good, strings.Repeat("[", 1<<16)}, {good, strings.Repeat(`{"a":`, 1<<16)},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Fatalf("%q is not there", change[0])
		}
		if _, err := parseConfig([]byte(bad)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%.200s: %v, want ErrCorrupt", bad, err)
		}
	}
}

// sampleManifest is the JSON of a manifest with two packs and an attachment.
func sampleManifest() []byte {
	layer := func(mediaType, name string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(mediaType + name), Size: 100}
	}
	m := &manifest{
		config:      layer(MediaTypeConfig, ""),
		root:        layer(MediaTypeIndex, ""),
		packs:       []ocispec.Descriptor{layer(MediaTypePack, "0"), layer(MediaTypePack, "1")},
		attachments: []Attachment{{"vmstate", layer(MediaTypeBlob, "")}},
	}
	b, err := m.encode()
	if err != nil {
		panic(err)
	}
	return b
}

func TestHostileManifest(t *testing.T) {
	good := string(sampleManifest())
	if _, err := parseManifest([]byte(good)); err != nil {
		t.Fatal(err)
	}
	digest0 := digest.FromString(MediaTypeIndex).String()
	for _, c := range []struct {
		old, new string
		want     error
	}{
		{`"schemaVersion":2`, `"schemaVersion":1`, ErrUnsupported},
		{ocispec.MediaTypeImageManifest, "application/json", ErrUnsupported},
		{ArtifactType, "application/vnd.other", ErrUnsupported},
		{MediaTypeConfig, MediaTypePack, ErrCorrupt},
		{MediaTypeIndex, MediaTypePack, ErrCorrupt},
		{MediaTypeBlob, "application/vnd.other", ErrCorrupt},
		{MediaTypeBlob, MediaTypeConfig, ErrCorrupt},
		{digest0, "sha256:00", ErrCorrupt},
		{digest0, "../../etc/passwd", ErrCorrupt},
		{digest0, "", ErrCorrupt},
		{digest0, "sha512:" + strings.Repeat("0", 128), ErrCorrupt},
		{`"size":100`, `"size":-1`, ErrCorrupt},
		{`"size":100`, `"size":1099511627776`, ErrCorrupt},
		{`vmstate`, `../vmstate`, ErrCorrupt},
		{`vmstate`, ``, ErrCorrupt},
		{`"layers"`, `"fields":1,"layers"`, ErrCorrupt},
		{`"layers"`, `"layers":[],"layers"`, ErrCorrupt},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if bad == good {
			t.Fatalf("%q is not there", c.old)
		}
		if _, err := parseManifest([]byte(bad)); !errors.Is(err, c.want) {
			t.Errorf("%s for %s: %v, want %v", c.new, c.old, err, c.want)
		}
	}
}

// TestManifestOfOtherPacks opens an image whose manifest and root are both well-formed, and disagree.
func TestManifestOfOtherPacks(t *testing.T) {
	m, d, _ := damaged(t)
	good := string(m.blobs[d.Digest])
	r := openImage(t, m, d)
	first, second := r.manifest.packs[0], r.manifest.packs[1]
	entry := func(d ocispec.Descriptor) string {
		return fmt.Sprintf(`{"mediaType":"%s","digest":"%s","size":%d}`, d.MediaType, d.Digest, d.Size)
	}
	other := first
	other.Digest = digest.FromString("other")
	for name, bad := range map[string]string{
		"one less":  strings.Replace(good, entry(first)+",", "", 1),
		"swapped":   strings.Replace(good, entry(first)+","+entry(second), entry(second)+","+entry(first), 1),
		"another":   strings.Replace(good, entry(first), entry(other), 1),
		"one twice": strings.Replace(good, entry(first), entry(first)+","+entry(first), 1),
	} {
		if bad == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := Open(t.Context(), m, m.put(ocispec.MediaTypeImageManifest, []byte(bad))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}
