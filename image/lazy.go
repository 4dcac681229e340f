package image

import (
	"context"
	"sync"
	"sync/atomic"
)

// A lazy is a value that is loaded when it is first wanted, once for all who want it meanwhile. It may be dropped and is
// then loaded again. Its zero value is ready.
type lazy[T any] struct {
	value atomic.Pointer[T]
	mu    sync.Mutex
	load  *loading[T] // the one under way
}

type loading[T any] struct {
	done      chan struct{}
	value     *T
	err       error
	abandoned bool // the loader's own context ended, which says nothing about the value
}

// get gives the value, which f loads if it must. An error goes to all who waited, and is not kept.
func (l *lazy[T]) get(ctx context.Context, f func(context.Context) (*T, error)) (*T, error) {
	for {
		l.mu.Lock()
		if v := l.value.Load(); v != nil {
			l.mu.Unlock()
			return v, nil
		}
		c := l.load
		if c == nil {
			c = &loading[T]{done: make(chan struct{})}
			l.load = c
			l.mu.Unlock()
			return l.run(ctx, c, f)
		}
		l.mu.Unlock()
		select {
		case <-c.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !c.abandoned {
			return c.value, c.err
		}
	}
}

func (l *lazy[T]) run(ctx context.Context, c *loading[T], f func(context.Context) (*T, error)) (*T, error) {
	c.value, c.err = f(ctx)
	c.abandoned = c.err != nil && ctx.Err() != nil
	l.mu.Lock()
	if c.err == nil {
		l.value.Store(c.value)
	}
	l.load = nil
	l.mu.Unlock()
	close(c.done)
	return c.value, c.err
}

// A cache bounds the memory of many lazy values: beyond the limit it drops the oldest.
type cache[T any] struct {
	limit int // bytes

	mu    sync.Mutex
	bytes int
	held  []cached[T] // oldest first
}

type cached[T any] struct {
	cell  *lazy[T]
	bytes int
}

// add counts the value that has just been loaded into cell.
func (c *cache[T]) add(cell *lazy[T], bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = append(c.held, cached[T]{cell, bytes})
	c.bytes += bytes
	for c.bytes > c.limit && len(c.held) > 1 {
		c.held[0].cell.value.Store(nil)
		c.bytes -= c.held[0].bytes
		c.held = c.held[1:]
	}
}
