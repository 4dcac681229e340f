// Package cpu bounds the work that needs a processor. Hashing, compressing and decoding go through one process-wide
// semaphore of as many slots as there are processors, so that they never pile up in front of the threads that answer faults.
//
// A holder must not do I/O or wait for anything: what blocks others is a slot held in vain.
package cpu

import (
	"context"
	"runtime"
)

var slots = make(chan struct{}, runtime.NumCPU())

// Slots is how many holders there may be at once: the number of processors.
func Slots() int { return cap(slots) }

// Acquire waits for a slot. It fails only with ctx's error; after success, call Release.
// It allocates nothing.
func Acquire(ctx context.Context) error {
	select {
	case slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Release gives back the slot that Acquire took.
func Release() { <-slots }

// Do runs f in a slot. It fails only with ctx's error, and then f has not run.
func Do(ctx context.Context, f func()) error {
	if err := Acquire(ctx); err != nil {
		return err
	}
	defer Release()
	f()
	return nil
}
