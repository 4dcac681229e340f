package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"faultline/image"
	"faultline/internal/snapshot"
	"faultline/store"
)

// An input is content to restore: a raw file, and in the store the image
// name:raw, of plain frames, and name:zstd.
type input struct{ name, file string }

type inputs struct {
	store  string
	random input // nothing can be left out or made smaller
	guest  input // zeros, duplicates, and pages that compress, like a guest's
	small  input // the beginning of random
}

// smallest is how much is touched where each touch is a fault.
const smallest = 32 << 20

// makeInputs writes everything into dir. That leaves it in the page cache.
func makeInputs(ctx context.Context, dir string, size int64) (in inputs, err error) {
	in.store = filepath.Join(dir, "store")
	layout, err := store.OpenLayout(in.store)
	if err != nil {
		return in, err
	}
	for _, next := range []struct {
		to   *input
		name string
		size int64
		fill func(io.Writer, int64) error
	}{
		{&in.random, "random", size, fillRandom},
		{&in.small, "small", min(size, smallest), fillRandom},
		{&in.guest, "guest", size, func(w io.Writer, n int64) error { return snapshot.Write(w, n, 1) }},
	} {
		*next.to = input{name: next.name, file: filepath.Join(dir, next.name)}
		if err := next.to.make(ctx, layout, next.size, next.fill); err != nil {
			return in, fmt.Errorf("make the %s input: %w", next.name, err)
		}
	}
	return in, nil
}

func (in input) make(ctx context.Context, layout *store.Layout, size int64, fill func(io.Writer, int64) error) error {
	f, err := os.Create(in.file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := fill(w, size); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, codec := range []image.Codec{image.Raw, image.Zstd} {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		d, err := layout.Pack(ctx, f, size, image.Options{Codec: codec})
		if err != nil {
			return err
		}
		if err := layout.Tag(ctx, store.Ref{Name: in.name, Tag: string(codec)}, d); err != nil {
			return err
		}
	}
	return nil
}

func fillRandom(w io.Writer, size int64) error {
	_, err := io.CopyN(w, rand.NewChaCha8([32]byte{1}), size)
	return err
}
