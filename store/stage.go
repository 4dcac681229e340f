package store

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// prepare makes the store if it must, and removes what dead writers left.
func (l *Layout) prepare() error {
	l.create.Lock()
	defer l.create.Unlock()
	if l.ready {
		return nil
	}
	if err := l.check(); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	for _, dir := range []string{blobDir, stageDir} {
		if err := makeDir(l.path(dir)); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	if err := l.initialize(); err != nil {
		return err
	}
	l.sweep()
	l.ready = true
	return nil
}

// makeDir makes a directory and its parents, durably.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// initialize writes the two files without which there is no layout; oci-layout, which makes it one, last.
func (l *Layout) initialize() error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(l.path(ocispec.ImageLayoutFile)); err == nil {
		return nil
	}
	index, err := encodeIndex(newIndex())
	if err != nil {
		return err
	}
	version, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	if _, err := os.Stat(l.path(ocispec.ImageIndexFile)); errors.Is(err, fs.ErrNotExist) {
		if err := l.replace(ocispec.ImageIndexFile, index); err != nil {
			return err
		}
	}
	return l.replace(ocispec.ImageLayoutFile, version)
}

// lock takes the lock of index.json, waiting for others. It dies with its process.
func (l *Layout) lock() (unlock func(), err error) {
	f, err := os.OpenFile(l.path(filepath.Join(stageDir, lockName)), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("store: lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// sweep removes the staged files of writers that are gone: theirs is the lock that can be had. What cannot be removed
// does no harm.
func (l *Layout) sweep() {
	entries, err := os.ReadDir(l.path(stageDir))
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Name() != lockName && e.Type().IsRegular() {
			sweepFile(l.path(filepath.Join(stageDir, e.Name())))
		}
	}
}

func sweepFile(name string) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil {
		os.Remove(name)
	}
}

// stage makes a new file in ingest, locked.
func (l *Layout) stage() (*os.File, error) {
	for {
		f, err := os.OpenFile(l.path(filepath.Join(stageDir, rand.Text())), os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		kept, err := lockNew(f)
		if kept {
			return f, nil
		}
		f.Close()
		if err != nil {
			os.Remove(f.Name())
			return nil, fmt.Errorf("store: lock %s: %w", f.Name(), err)
		}
	}
}

// lockNew locks a file that has just been made. A sweep may have come between, and then the file is not kept.
func lockNew(f *os.File) (kept bool, err error) {
	if err := flock(f, unix.LOCK_EX); err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, err
	}
	return st.Nlink > 0, nil
}

// replace puts content in place of the store's file of that name, at once or not at all.
func (l *Layout) replace(name string, content []byte) error {
	f, err := l.stageContent(content)
	if err != nil {
		return err
	}
	return l.publish(f, name)
}

// stageContent stages a whole file, durably.
func (l *Layout) stageContent(content []byte) (*os.File, error) {
	f, err := l.stage()
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(content); err != nil {
		return nil, discard(f, err)
	}
	if err := f.Sync(); err != nil {
		return nil, discard(f, err)
	}
	return f, nil
}

// publish makes a staged file, which is durable, visible under its name in the store, and closes it.
func (l *Layout) publish(f *os.File, name string) error {
	if err := os.Rename(f.Name(), l.path(name)); err != nil {
		return discard(f, err)
	}
	if err := errors.Join(f.Close(), syncDir(filepath.Dir(l.path(name)))); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// discard removes a staged file because of err.
func discard(f *os.File, err error) error {
	return fmt.Errorf("store: %w", errors.Join(err, os.Remove(f.Name()), f.Close()))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
