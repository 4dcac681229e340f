// Package store keeps images. A [Layout] is a store on disk: an OCI image layout, which other tools read too. It gives
// package image what it needs, image.Blobs and image.Stage, and keeps the names of images.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"faultline/image"
)

// ErrNotFound says that there is no such store, name or blob.
var ErrNotFound = errors.New("not found")

const (
	dirMode  = 0o700 // images are secrets
	fileMode = 0o600
	blobDir  = "blobs/sha256"
	stageDir = "ingest"
	lockName = "lock" // in stageDir
)

// A Layout is a store on disk. Its methods may be called by many goroutines, and many processes may use one directory.
//
//	oci-layout, index.json   as OCI says; index.json has the names, as NAME:TAG in org.opencontainers.image.ref.name
//	blobs/sha256/HEX         the blobs
//	ingest/                  blobs being written, each locked by its writer, and the lock of index.json
//
// Everything is first written elsewhere, made durable and then renamed to its place, so nobody ever sees a part of it.
type Layout struct {
	dir    string
	create sync.Mutex
	ready  bool // the directories are there and were swept; under create
}

// DefaultDir is the store's usual place: $XDG_DATA_HOME/faultline, or ~/.local/share/faultline.
func DefaultDir() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "faultline"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	return filepath.Join(home, ".local", "share", "faultline"), nil
}

// OpenLayout gives the store in dir. The directory need not exist: the first write makes it, and reads fail with
// [ErrNotFound] until then. It fails if dir has other things in it. There is nothing to close.
func OpenLayout(dir string) (*Layout, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	l := &Layout{dir: dir}
	if err := l.check(); err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	return l, nil
}

// Dir is the store's directory, an absolute path.
func (l *Layout) Dir() string { return l.dir }

func (l *Layout) path(name string) string { return filepath.Join(l.dir, name) }

// check says whether there is a store.
func (l *Layout) check() error {
	b, err := readFile(l.path(ocispec.ImageLayoutFile), 4<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return l.checkForeign()
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	var v ocispec.ImageLayout
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("store: %s is not an OCI image layout: %w", l.dir, err)
	}
	if v.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("store: %s has OCI image layout version %q: %w", l.dir, v.Version, ErrUnsupported)
	}
	return nil
}

// checkForeign looks at a directory without an oci-layout file: a store whose making was cut short is as good as none.
func (l *Layout) checkForeign() error {
	entries, err := os.ReadDir(l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: %w", err)
	}
	for _, e := range entries {
		if n := e.Name(); n != "blobs" && n != stageDir && n != ocispec.ImageIndexFile {
			return fmt.Errorf("store: %s is not a store: it has a %q and no %q", l.dir, n, ocispec.ImageLayoutFile)
		}
	}
	return fmt.Errorf("store: no store at %s: %w", l.dir, ErrNotFound)
}

// OpenBlob implements image.Blobs. A blob whose size is not d's is image.ErrCorrupt; its digest is not checked here.
func (l *Layout) OpenBlob(ctx context.Context, d ocispec.Descriptor) (image.Blob, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, size, err := l.open(d.Digest)
	if err != nil {
		return nil, err
	}
	if size != d.Size {
		f.Close()
		return nil, fmt.Errorf("store: blob %s has %d bytes, not %d: %w", d.Digest, size, d.Size, image.ErrCorrupt)
	}
	return &blob{f: f, size: size}, nil
}

func (l *Layout) open(d digest.Digest) (*os.File, int64, error) {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return nil, 0, fmt.Errorf("store: digest %q is not a sha256: %w", d, image.ErrBadInput)
	}
	f, err := os.Open(l.path(filepath.Join(blobDir, d.Encoded())))
	if errors.Is(err, fs.ErrNotExist) {
		if err := l.check(); err != nil {
			return nil, 0, err
		}
		return nil, 0, fmt.Errorf("store: blob %s: %w", d, ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("store: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("store: blob %s is not a file: %w", d, image.ErrCorrupt)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// A blob is an open file.
type blob struct {
	f    *os.File
	size int64
}

func (b *blob) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := b.f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("store: %w", err)
}

func (b *blob) Size() int64  { return b.size }
func (b *blob) Close() error { return b.f.Close() }

// readFile reads a file of at most limit bytes.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes: %w", name, limit, image.ErrCorrupt)
	}
	return b, err
}
