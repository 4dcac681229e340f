package cpu

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

func TestDoIsBounded(t *testing.T) {
	var running, most atomic.Int64
	var wg sync.WaitGroup
	for range 8 * Slots() {
		wg.Go(func() {
			err := Do(t.Context(), func() {
				n := running.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				running.Add(-1)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := most.Load(); got > int64(Slots()) {
		t.Errorf("%d ran at once, at most %d may", got, Slots())
	}
}

func TestAcquireGivesUp(t *testing.T) {
	for range Slots() {
		if err := Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer Release(t.Context())
	}
	urgent := Demand(t.Context())
	if err := Acquire(urgent); err != nil {
		t.Errorf("demand waits for a pack: %v", err)
	}
	Release(urgent)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Acquire(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Acquire with all slots taken: %v, want context.Canceled", err)
	}
	if err := Do(ctx, func() { t.Error("ran without a slot") }); !errors.Is(err, context.Canceled) {
		t.Errorf("Do with all slots taken: %v, want context.Canceled", err)
	}
}
