package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"faultline/uffd"
)

// checkMachine says in one line what this machine lacks for a demo of that size.
func checkMachine(size int64) error {
	fd, err := uffd.Open(uffd.Options{Features: uffd.EventRemove})
	if err != nil {
		return hinted(lacking(err),
			"Run it as root, on Linux 5.7 or later with CONFIG_USERFAULTFD.")
	}
	if err := fd.Close(); err != nil {
		return fmt.Errorf("close a userfaultfd: %w", err)
	}
	dir := os.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return hinted(lacking(fmt.Errorf("the temporary directory %s: %w", dir, err)), "Set $TMPDIR.")
	}
	space := 2 * size // the snapshot, and an image that may not be smaller
	if free := int64(fs.Bavail) * fs.Bsize; free < space {
		return hinted(fmt.Errorf("%s has %s free, the demo needs %s: %w", dir, formatSize(free), formatSize(space), unix.ENOSPC),
			"Set $TMPDIR to a larger file system, or choose a smaller --size.")
	}
	memory := size + size/4 + 256<<20 // the client's, and ours
	if fs.Type == unix.TMPFS_MAGIC {
		memory += space
	}
	if free, err := availableMemory(); err == nil && free < memory {
		return hinted(lacking(fmt.Errorf("%s of memory is available, the demo needs %s", formatSize(free), formatSize(memory))),
			"Choose a smaller --size.")
	}
	return nil
}

// availableMemory is what can be had without swapping.
func availableMemory() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var kib int64
		if n, _ := fmt.Sscanf(lines.Text(), "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}
