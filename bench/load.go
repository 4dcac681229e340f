package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"faultline/image"
)

// keepBusy packs a file again and again, which takes all of the process's share of
// the CPUs, until stop is called. When it returns the load is there.
func keepBusy(ctx context.Context, path string) (stop func() error, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var once sync.Once
	busy, ended := make(chan struct{}), make(chan error, 1)
	progress := func(int64, int64) { once.Do(func() { close(busy) }) }
	go func() {
		defer progress(0, 0)
		for {
			if _, err := image.Pack(ctx, &nowhere{}, io.NewSectionReader(f, 0, 1<<62), -1, image.Options{Progress: progress, Background: true}); err != nil {
				ended <- err
				return
			}
		}
	}()
	<-busy
	return func() error {
		cancel()
		err := <-ended
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		return errors.Join(err, f.Close())
	}, nil
}

// nowhere is a stage that keeps nothing: the load must be on the CPUs and not on a
// disk.
type nowhere struct{ blobs atomic.Uint64 }

func (n *nowhere) Create(context.Context) (image.BlobWriter, error) {
	return &discarded{name: n.blobs.Add(1)}, nil
}

type discarded struct {
	name uint64
	size int64
}

func (d *discarded) Write(p []byte) (int, error) {
	d.size += int64(len(p))
	return len(p), nil
}

func (d *discarded) Commit(_ context.Context, mediaType string) (ocispec.Descriptor, error) {
	unique := digest.FromBytes(binary.LittleEndian.AppendUint64(nil, d.name))
	return ocispec.Descriptor{MediaType: mediaType, Digest: unique, Size: d.size}, nil
}

func (d *discarded) Abort() error { return nil }
