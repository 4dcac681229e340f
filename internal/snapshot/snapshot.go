// Package snapshot makes memory files that look like a guest's, for tests,
// benchmarks and the demo.
package snapshot

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

const pageSize = 4096

// WriteFile makes a file of size bytes, a multiple of 4096, like a guest's
// memory. See Write.
func WriteFile(path string, size int64, seed uint64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := Write(f, size, seed); err != nil {
		f.Close()
		return fmt.Errorf("write a snapshot to %s: %w", path, err)
	}
	return f.Close()
}

// Write writes memory like that of a guest that has run for a while: some 45%
// zero pages, two thirds of them in long runs; 15% copies of earlier pages; 30%
// that compress well, half of them text and half tables of pointers; 10% random.
// The same size and seed give the same bytes.
func Write(w io.Writer, size int64, seed uint64) error {
	if size < 0 || size%pageSize != 0 {
		return fmt.Errorf("a snapshot of %d bytes does not consist of pages of %d", size, pageSize)
	}
	g := generator{random: random(seed), run: 200}
	buffer := make([]byte, 256*pageSize)
	for size > 0 {
		piece := buffer[:min(size, int64(len(buffer)))]
		for at := 0; at < len(piece); at += pageSize {
			g.page(piece[at : at+pageSize])
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
		size -= int64(len(piece))
	}
	return nil
}

// A generator makes one page after another.
type generator struct {
	random random
	zeros  uint64     // how many pages of a run of zeros are still to come
	run    uint64     // how many pages of other kinds are to come before the next
	recent [64]recipe // of pages that may be copied
	made   uint64     // how many recipes there have been
}

// A recipe makes the same page each time.
type recipe struct {
	make func(page []byte, r random)
	seed random
}

// page makes the next page. Runs alternate: zeros, of 64 to 575 pages, and a
// mixture of all kinds, of 150 to 1341 pages, which is 30 to 70.
func (g *generator) page(page []byte) {
	if g.run == 0 {
		g.zeros = 64 + g.random.below(512)
		g.run = 150 + g.random.below(1192)
	}
	if g.zeros > 0 {
		g.zeros--
		clear(page)
		return
	}
	g.run--
	kind := g.random.below(70)
	switch {
	case kind < 15:
		clear(page)
		return
	case kind < 30 && g.made > 0:
		old := g.recent[g.random.below(min(g.made, uint64(len(g.recent))))]
		old.make(page, old.seed)
		return
	}
	next := recipe{make: fillRandom, seed: random(g.random.next())}
	if kind < 45 {
		next.make = fillText
	} else if kind < 60 {
		next.make = fillPointers
	}
	g.recent[g.made%uint64(len(g.recent))] = next
	g.made++
	next.make(page, next.seed)
}

func fillRandom(page []byte, r random) {
	for at := 0; at < len(page); at += 8 {
		binary.LittleEndian.PutUint64(page[at:], r.next())
	}
}

// fillPointers makes a table of kernel addresses that lie near each other, with
// some fields that are small or empty.
func fillPointers(page []byte, r random) {
	base := 0xFFFF888000000000 | r.next()&0x3FFFF000
	for at := 0; at < len(page); at += 32 {
		x := r.next()
		binary.LittleEndian.PutUint64(page[at:], base+x&0xFFC0)
		binary.LittleEndian.PutUint64(page[at+8:], base+x>>16&0xFFC0)
		binary.LittleEndian.PutUint64(page[at+16:], x>>60)
		binary.LittleEndian.PutUint64(page[at+24:], 0)
	}
}

// fillText makes log-like text.
func fillText(page []byte, r random) {
	for at := 0; at < len(page); {
		x := r.next()
		for range 8 {
			at += copy(page[at:], words[x%uint64(len(words))])
			x >>= 8
		}
	}
}

var words = [...]string{
	"the ", "of ", "and ", "kernel: ", "error ", "request ", "GET /index.html ", "HTTP/1.1\" 200 ", "session ",
	"user=", "root ", "started ", "in ", "127.0.0.1 ", "path=/var/lib/", "container ", "failed ", "with ", "status ",
	"0x", "[INFO] ", "[WARN] ", "connection ", "closed\n", "opened\n", "memory ", "page ", "at ", "line ", "42",
	"timeout ", "\n",
}

// random is splitmix64: a number is all of its state.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9E3779B97F4A7C15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// below is a number in [0, n).
func (r *random) below(n uint64) uint64 { return r.next() % n }
