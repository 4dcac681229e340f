package pager

import "context"

// A Source has the content that a session shows. Its methods are called from many
// goroutines, and may block.
type Source interface {
	// Size is the number of bytes of content.
	Size() int64
	// Extent describes the content at off: n bytes, at least one and in whole pages
	// of 4 KiB, that are all zero, or that are read at one price and fail together.
	Extent(ctx context.Context, off int64) (n int64, zero bool, err error)
	// ReadAt fills p, all of it, or fails. What it gives is verified.
	ReadAt(ctx context.Context, p []byte, off int64) error
}

// Resident is a Source that has content in memory, ready to be installed.
type Resident interface {
	Source
	// Bytes gives n bytes at off without blocking, or nil where they are not at hand.
	// The memory lies outside the Go heap, or is never freed, and stays as it is for
	// as long as the source is in use. It is only ever read by the kernel, as the
	// source of a copy: an unreadable page of a mapped file is an error there, where
	// it would be a signal to whoever loads from it.
	Bytes(off int64, n int) []byte
}
