package store

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"faultline/image"
)

// mountTmpfs mounts a small file system for the test. Where that is not allowed, the test is skipped.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, options)
	if errors.Is(err, unix.EPERM) {
		t.Skip("mounting needs root: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullDisk fills the disk at every stage of a pack and of a tag, to the last page. The store stays as it was, the room
// is free again, and all works once there is enough.
func TestFullDisk(t *testing.T) {
	dir := mountTmpfs(t, "size=2m,mode=0700")
	l, err := OpenLayout(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	want := content(30)
	packTagged(t, l, "good", want)
	before := files(t, l.Dir())
	ballast := filepath.Join(dir, "ballast")
	room := available(t, dir)
	for free := int64(0); ; free += 4 << 10 {
		fill(t, ballast, dir, free)
		_, err := l.PackAs(t.Context(), mustParse(t, "large"), bytes.NewReader(content(200)), -1, image.Options{PackSize: 64 << 10, FrameSize: 32 << 10})
		if err == nil && free > 0 {
			t.Logf("it needed %d KiB", free>>10)
			break
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("pack with %d bytes free: %v, want ENOSPC", free, err)
		}
		if free == 0 {
			d, err := l.Resolve(t.Context(), mustParse(t, "good"))
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Tag(t.Context(), mustParse(t, "other"), d); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("tag: %v, want ENOSPC", err)
			}
		}
		if left := staged(t, l); len(left) > 0 {
			t.Errorf("left in %s: %v", stageDir, left)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		checkUnchanged(t, l, before)
		if now := available(t, dir); now != room {
			t.Errorf("%d bytes are free, %d were before", now, room)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if got, err := readTagged(t.Context(), l, mustParse(t, "large")); err != nil || !bytes.Equal(got, content(200)) {
		t.Errorf("content of what just fitted differs, %v", err)
	}
	if got, err := readTagged(t.Context(), l, mustParse(t, "good")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("content differs, %v", err)
	}
	packTagged(t, l, "other", content(10))
}

// fill takes all of the file system's room but so many bytes.
func fill(t *testing.T, ballast, dir string, leave int64) {
	t.Helper()
	if err := os.WriteFile(ballast, make([]byte, available(t, dir)-leave), fileMode); err != nil {
		t.Fatal(err)
	}
}

// available is how many bytes the file system has room for.
func available(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// checkUnchanged checks that files and names are as before.
func checkUnchanged(t *testing.T, l *Layout, before map[string]int64) {
	t.Helper()
	if after := files(t, l.Dir()); !maps.Equal(before, after) {
		t.Errorf("the store has %v, had %v", after, before)
	}
	if list, err := l.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("listed %v, %v; want one name", list, err)
	}
}

// TestReadOnly reads from a store that cannot be written, and writes to it in vain.
func TestReadOnly(t *testing.T) {
	dir := mountTmpfs(t, "size=4m,mode=0700")
	l, err := OpenLayout(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	want := content(30)
	packTagged(t, l, "good", want)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{l.Dir(), filepath.Join(dir, "none")} {
		l, err := OpenLayout(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Pack(t.Context(), bytes.NewReader(want), -1, image.Options{}); !errors.Is(err, unix.EROFS) {
			t.Errorf("pack: %v, want EROFS", err)
		}
	}
	fresh, err := OpenLayout(l.Dir())
	if err != nil {
		t.Fatal(err)
	}
	d, err := fresh.Resolve(t.Context(), mustParse(t, "good"))
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.Tag(t.Context(), mustParse(t, "other"), d); !errors.Is(err, unix.EROFS) {
		t.Errorf("tag: %v, want EROFS", err)
	}
	if got, err := readTagged(t.Context(), fresh, mustParse(t, "good")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("content differs, %v", err)
	}
}
