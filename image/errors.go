package image

import (
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// What errors of this package wrap, for errors.Is.
var (
	// ErrCorrupt says that stored bytes are not what they must be: a digest does not match, a blob is too short, or a
	// field breaks the format. What a buffer holds then was not verified and must not be used.
	ErrCorrupt = errors.New("corrupt image")
	// ErrUnsupported says that the image is of a kind or version this package does not know.
	ErrUnsupported = errors.New("unsupported image")
	// ErrBadInput says that the caller asked for what cannot be: a range outside the image, an input that is no whole
	// number of pages, an option out of its limits.
	ErrBadInput = errors.New("bad input")
	// ErrClosed says that the Reader was closed.
	ErrClosed = errors.New("image is closed")
)

// A ReadError says which bytes could not be read or trusted. The cause is in Err: it wraps [ErrCorrupt] if the bytes are
// wrong, and the store's error if they could not be had.
type ReadError struct {
	Part   string        // "manifest", "config", "index root", "index block", "frame", "pack" or "attachment"
	Digest digest.Digest // of the blob
	Offset int64         // in the blob, bytes
	Length int64         // bytes
	Err    error
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("%s, %d bytes at %d of %s: %v", e.Part, e.Length, e.Offset, e.Digest, e.Err)
}

func (e *ReadError) Unwrap() error { return e.Err }

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

func badInput(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBadInput}, args...)...)
}

// shortIsCorrupt marks a blob's early end as corruption: only ranges inside a blob are ever asked for.
func shortIsCorrupt(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}
