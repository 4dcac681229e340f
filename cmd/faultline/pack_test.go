package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultline/internal/snapshot"
)

// An interrupted pack leaves nothing, though blobs of it were complete: the packs, and
// one attachment. The next never ends.
func TestInterruptedPackLeavesNothing(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		dir := t.TempDir()
		store, memory, state, endless := filepath.Join(dir, "store"), filepath.Join(dir, "memory"), filepath.Join(dir, "state"), filepath.Join(dir, "endless")
		err := errors.Join(snapshot.WriteFile(memory, 4<<20, 1), os.WriteFile(state, []byte("device state"), 0o600), unix.Mkfifo(endless, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("faultline", "pack", memory, "app", "--store", store, "--with", "a="+state, "--with", "b="+endless)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fifo, err := os.OpenFile(endless, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		signalled := false
		begin := time.Now()
		for err == nil { // until nobody reads
			if len(inside(t, store, "ingest")) >= 4 && !signalled { // the lock, a pack, an attachment, and the one being written
				signalled = true
				err = cmd.Process.Signal(signal)
			}
			if time.Since(begin) > patience {
				cmd.Process.Kill()
			}
			_, writeErr := fifo.WriteString("more\n")
			err = errors.Join(err, writeErr)
			time.Sleep(time.Millisecond)
		}
		fifo.Close()
		if !errors.Is(err, unix.EPIPE) || !signalled {
			t.Errorf("%v, signalled: %v", err, signalled)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 128+int(signal) {
			t.Errorf("%v: %s", err, stderr.String())
		}
		hasFields(t, stderr.String(), "faultline: ", "stopped by signal")
		if left := inside(t, store, "ingest"); len(left) != 1 || left[0] != "lock" {
			t.Errorf("left in ingest: %v", left)
		}
		if left := inside(t, store, "blobs/sha256"); len(left) > 0 {
			t.Errorf("left in blobs: %v", left)
		}
	}
}

// inside lists a directory of a store.
func inside(t *testing.T, store, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(store, dir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
