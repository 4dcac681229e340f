// Package cpu bounds the work that needs a processor. Hashing, compressing and
// decoding hold one of as many slots as there are processors, so that they never
// pile up in front of the threads that answer faults.
//
// Work that a client waits for has slots of its own: it never queues behind a pack
// that runs at the same time.
//
// A holder must not do I/O or wait for anything: what blocks others is a slot held
// in vain.
package cpu

import (
	"context"
	"runtime"
)

type lane chan struct{}

var (
	common = make(lane, runtime.NumCPU())
	demand = make(lane, runtime.NumCPU())
)

// Slots is how many there are of each kind: the number of processors.
func Slots() int { return cap(common) }

type demandKey struct{}

// Demand marks what is done under a context as something that a client waits for.
func Demand(ctx context.Context) context.Context { return context.WithValue(ctx, demandKey{}, true) }

func laneOf(ctx context.Context) lane {
	if ctx.Value(demandKey{}) != nil {
		return demand
	}
	return common
}

// Acquire waits for a slot. It fails only with ctx's error; after success, call
// Release with the same ctx. It allocates nothing.
func Acquire(ctx context.Context) error {
	l := laneOf(ctx)
	select {
	case l <- struct{}{}:
		return nil
	default:
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Release gives back the slot that Acquire took.
func Release(ctx context.Context) { <-laneOf(ctx) }

// Do runs f in a slot. It fails only with ctx's error, and then f has not run.
func Do(ctx context.Context, f func()) error {
	if err := Acquire(ctx); err != nil {
		return err
	}
	defer Release(ctx)
	f()
	return nil
}
