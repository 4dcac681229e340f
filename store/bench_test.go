package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"faultline/image"
)

// BenchmarkReadAt reads whole frames from disk, which means the page cache.
func BenchmarkReadAt(b *testing.B) {
	memory := make([]byte, 64<<20)
	rand.NewChaCha8([32]byte{1}).Read(memory)
	for page := 0; page < len(memory); page += image.PageSize {
		clear(memory[page : page+image.PageSize/2]) // half of each page shrinks to nothing
	}
	for _, codec := range []image.Codec{image.Raw, image.Zstd} {
		b.Run(fmt.Sprint(codec), func(b *testing.B) {
			l, err := OpenLayout(filepath.Join(b.TempDir(), "store"))
			if err != nil {
				b.Fatal(err)
			}
			d, err := l.Pack(b.Context(), bytes.NewReader(memory), -1, image.Options{Codec: codec})
			if err != nil {
				b.Fatal(err)
			}
			r, err := image.Open(b.Context(), l, d)
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			p := make([]byte, r.FrameSize())
			b.SetBytes(r.FrameSize())
			b.ReportAllocs()
			off := int64(0)
			for b.Loop() {
				if err := r.ReadAt(b.Context(), p, off); err != nil {
					b.Fatal(err)
				}
				off = (off + r.FrameSize()) % r.Size()
			}
		})
	}
}
