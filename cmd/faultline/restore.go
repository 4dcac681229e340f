package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"faultline/handoff"
	"faultline/handoff/firecracker"
	"faultline/handoff/handofftest"
	"faultline/image"
	"faultline/session"
	"faultline/store"
)

// A restoration is how one restore of the demo went. Times are in seconds from the
// moment at which the client had handed its memory over.
type restoration struct {
	FirstPage  float64 `json:"firstPageSeconds"`
	WorkingSet float64 `json:"workingSetSeconds"`
	Faults     uint64  `json:"faults"` // until then, and their latency as the client saw it
	FaultP50   float64 `json:"faultP50Seconds"`
	FaultP99   float64 `json:"faultP99Seconds"`
	BytesRead  int64   `json:"bytesRead"` // from the store, until then
	Complete   float64 `json:"completeSeconds"`
	Verified   uint64  `json:"pagesVerified"`
}

// A demo is what is restored.
type demo struct {
	dir      string
	snapshot string // the file
	layout   *store.Layout
	size     int64
	pages    []uint64 // the working set
}

// workingPages chooses runs of pages all over the memory, in a random order.
func workingPages(size int64) []uint64 {
	runs := uint64(size) / image.PageSize / workingRun
	order := rand.New(rand.NewPCG(demoSeed, 0)).Perm(int(runs))
	var pages []uint64
	for _, run := range order[:max(1, int(workingSet*float64(runs)))] {
		for i := range uint64(workingRun) {
			pages = append(pages, uint64(run)*workingRun+i)
		}
	}
	return pages
}

// restore starts a client, serves it, has it touch the working set and checks all of
// its memory.
func (d *demo) restore(ctx context.Context, eager bool) (r restoration, err error) {
	read := &countingBlobs{Blobs: d.layout}
	opened, err := d.open(ctx, read)
	if err != nil {
		return r, err
	}
	defer opened.Close()
	ctx, cancel := context.WithCancel(ctx) // ends the client, whatever happens
	defer cancel()
	client, handed, err := d.start(ctx)
	if err != nil {
		return r, err
	}
	defer client.Wait()
	defer cancel()
	begin := time.Now()
	s, err := session.Start(handed, session.Options{Source: opened})
	if err != nil {
		return r, err
	}
	defer s.Kill()
	if eager {
		if err := filled(ctx, s); err != nil {
			return r, err
		}
		r.Complete = time.Since(begin).Seconds()
	}
	if err := r.touch(client, s, d.pages, begin); err != nil {
		return r, err
	}
	r.BytesRead = read.n.Load()
	if err := filled(ctx, s); err != nil {
		return r, err
	}
	if !eager {
		r.Complete = time.Since(begin).Seconds()
	}
	return r, r.verify(client)
}

func (d *demo) open(ctx context.Context, blobs image.Blobs) (*openImage, error) {
	ref := store.Ref{Name: "demo", Tag: store.DefaultTag}
	manifest, err := d.layout.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	return openManifest(ctx, blobs, ref, manifest)
}

// start starts a client and takes what it hands over, as serve would.
func (d *demo) start(ctx context.Context) (*handofftest.Client, *handoff.Client, error) {
	var refused error
	l, err := firecracker.Listen(filepath.Join(d.dir, "socket"), firecracker.Options{Refused: func(err error) { refused = err }})
	if err != nil {
		return nil, nil, err
	}
	client, err := handofftest.Start(ctx, handofftest.Config{
		Socket: l.Addr(), Regions: []handofftest.Region{{Size: uint64(d.size)}}, Reference: d.snapshot,
	})
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	accepting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	handed, err := l.Accept(accepting)
	err = errors.Join(err, l.Close())
	if err != nil {
		client.Kill()
		return nil, nil, errors.Join(err, refused)
	}
	return client, handed, nil
}

func filled(ctx context.Context, s *session.Session) error {
	select {
	case <-s.Filled():
		return nil
	case <-s.Done():
		return fmt.Errorf("the session ended before all memory was there: %w", s.Wait())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// touch has one thread of the client load from each page. So those of its accesses
// that took longest are the ones that faulted, of which the session knows the number.
func (r *restoration) touch(client *handofftest.Client, s *session.Session, pages []uint64, begin time.Time) error {
	sinceBegin := time.Since(begin) // not counting the command's way to the client
	first, err := client.Touch(handofftest.TouchSpec{Pages: pages[:1], Samples: true})
	if err != nil {
		return err
	}
	sinceBegin += first.First
	rest, err := client.Touch(handofftest.TouchSpec{Pages: pages[1:], Samples: true})
	if err != nil {
		return err
	}
	r.FirstPage, r.WorkingSet = sinceBegin.Seconds(), (sinceBegin + rest.Wall).Seconds()
	if n := len(first.Poisoned) + len(rest.Poisoned); n > 0 {
		return fmt.Errorf("%d pages could not be had", n)
	}
	samples := slices.Sorted(slices.Values(slices.Concat(first.Samples, rest.Samples)))
	r.Faults = min(s.Stats().Faults, uint64(len(samples)))
	if slow := samples[len(samples)-int(r.Faults):]; len(slow) > 0 {
		r.FaultP50 = time.Duration(slow[(len(slow)-1)/2]).Seconds()
		r.FaultP99 = time.Duration(slow[(len(slow)*99+99)/100-1]).Seconds()
	}
	return nil
}

func (r *restoration) verify(client *handofftest.Client) error {
	result, err := client.Check()
	if err != nil {
		return err
	}
	r.Verified = result.Checked
	return result.Err()
}

// countingBlobs counts what is read from a store.
type countingBlobs struct {
	image.Blobs
	n atomic.Int64
}

func (c *countingBlobs) OpenBlob(ctx context.Context, d ocispec.Descriptor) (image.Blob, error) {
	b, err := c.Blobs.OpenBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	return &countingBlob{b, c}, nil
}

type countingBlob struct {
	image.Blob
	all *countingBlobs
}

func (b *countingBlob) ReadAt(ctx context.Context, p []byte, off int64) error {
	b.all.n.Add(int64(len(p)))
	return b.Blob.ReadAt(ctx, p, off)
}
