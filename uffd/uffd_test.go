package uffd_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"faultline/internal/testkit"
	"faultline/uffd"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const pageSize = 4096

// open makes a userfaultfd, or fails: these tests need the privilege.
func open(t *testing.T, o uffd.Options) *uffd.FD {
	t.Helper()
	fd, err := uffd.Open(o)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		testkit.Skip(t, err.Error(), os.Getuid() == 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fd.Close() })
	return fd
}

// memory maps anonymous pages of this process. No test here touches one that is
// missing: the fault would be this process's own.
func memory(t *testing.T, pages int) ([]byte, uffd.Range) {
	t.Helper()
	m, err := unix.Mmap(-1, 0, pages*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	if err := unix.Madvise(m, unix.MADV_NOHUGEPAGE); err != nil {
		t.Fatal(err)
	}
	return m, uffd.Range{uint64(uintptr(unsafe.Pointer(&m[0]))), uint64(len(m))}
}

func part(r uffd.Range, first, pages uint64) uffd.Range {
	return uffd.Range{r.Start + first*pageSize, pages * pageSize}
}

func TestOpen(t *testing.T) {
	fd := open(t, uffd.Options{Features: uffd.EventRemove, Optional: uffd.Poison | 1<<60})
	if f := fd.Features(); !f.Has(uffd.EventRemove) || f&(1<<60) != 0 {
		t.Errorf("features %v", f)
	}
	flags, err := unix.FcntlInt(uintptr(fd.Int()), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v: not non-blocking", flags, err)
	}
	if flags, err = unix.FcntlInt(uintptr(fd.Int()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v: not close-on-exec", flags, err)
	}
}

func TestOpenWithoutAFeature(t *testing.T) {
	_, err := uffd.Open(uffd.Options{Features: uffd.EventRemove | 1<<60})
	if !errors.Is(err, uffd.ErrUnsupported) || !strings.Contains(err.Error(), "0x1000000000000000") || strings.Contains(err.Error(), "EVENT_REMOVE") {
		t.Errorf("%v does not name what is missing, and only that", err)
	}
}

func TestCopyAndCounts(t *testing.T) {
	fd := open(t, uffd.Options{})
	m, r := memory(t, 16)
	ioctls, err := fd.Register(r, uffd.ModeMissing)
	if err != nil || !ioctls.Has(uffd.IoctlCopy|uffd.IoctlZeropage|uffd.IoctlWake|uffd.IoctlPoison) {
		t.Fatalf("register: %v, %v", ioctls, err)
	}
	src := bytes.Repeat([]byte{7}, 16*pageSize)
	if n, err := fd.Copy(r.Start+8*pageSize, src[:pageSize], 0); n != pageSize || err != nil {
		t.Fatalf("copy of one page: %d, %v", n, err)
	}
	// A present page stops a copy after the prefix, and is reported by itself next.
	n, err := fd.Copy(r.Start, src, 0)
	if n != 8*pageSize || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("copy over a present page: %d, %v", n, err)
	}
	n, err = fd.Copy(r.Start+8*pageSize, src[:8*pageSize], 0)
	var e *uffd.Error
	if n != 0 || !errors.Is(err, unix.EEXIST) || !errors.As(err, &e) || e.Range != part(r, 8, 8) {
		t.Errorf("copy onto a present page: %d, %v", n, err)
	}
	if n, err := fd.Zeropage(part(r, 9, 7), 0); n != 7*pageSize || err != nil {
		t.Errorf("zeropage: %d, %v", n, err)
	}
	if m[8*pageSize-1] != 7 || m[8*pageSize] != 7 || m[9*pageSize] != 0 {
		t.Error("the pages have wrong content")
	}
	if err := fd.Wake(r); err != nil {
		t.Error(err)
	}
	if err := fd.Unregister(r); err != nil {
		t.Error(err)
	}
}

// What is wrong with a range is said by the kernel's errno, and nothing panics.
func TestBadRanges(t *testing.T) {
	fd := open(t, uffd.Options{})
	m, r := memory(t, 4)
	if _, err := fd.Register(part(r, 0, 2), uffd.ModeMissing); err != nil {
		t.Fatal(err)
	}
	other := open(t, uffd.Options{})
	unreadable, _ := memory(t, 1)
	if err := unix.Mprotect(unreadable, unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	page := make([]byte, pageSize)
	copyTo := func(at uint64, src []byte) error { _, err := fd.Copy(at, src, 0); return err }
	register := func(f *uffd.FD, r uffd.Range, mode uffd.RegisterMode) error {
		_, err := f.Register(r, mode)
		return err
	}
	for name, test := range map[string]struct {
		err  error
		want unix.Errno
	}{
		"copy half a page":              {copyTo(r.Start, page[:100]), unix.EINVAL},
		"copy to a misaligned address":  {copyTo(r.Start+1, page), unix.EINVAL},
		"copy nothing":                  {copyTo(r.Start, nil), unix.EINVAL},
		"copy to unregistered memory":   {copyTo(r.Start+2*pageSize, page), unix.ENOENT},
		"copy past the end":             {copyTo(^uint64(0)&^(pageSize-1), page), unix.EINVAL},
		"copy from unreadable memory":   {copyTo(r.Start, unreadable), unix.EFAULT},
		"zero across the registration":  {second(fd.Zeropage(part(r, 1, 2), 0)), unix.ENOENT},
		"poison with an unknown mode":   {second(fd.Poison(part(r, 0, 1), 1<<40)), unix.EINVAL},
		"register nothing":              {register(fd, uffd.Range{r.Start, 0}, uffd.ModeMissing), unix.EINVAL},
		"register an overflow":          {register(fd, uffd.Range{r.Start, ^uint64(0) &^ (pageSize - 1)}, uffd.ModeMissing), unix.EINVAL},
		"register without a mode":       {register(fd, r, 0), unix.EINVAL},
		"register another's":            {register(other, part(r, 0, 2), uffd.ModeMissing), unix.EBUSY},
		"minor faults of private pages": {register(other, part(r, 2, 2), uffd.ModeMinor), unix.EINVAL},
		"wake a misaligned range":       {fd.Wake(uffd.Range{r.Start + 1, pageSize}), unix.EINVAL},
		"unregister nothing":            {fd.Unregister(uffd.Range{}), unix.EINVAL},
	} {
		var e *uffd.Error
		if !errors.Is(test.err, test.want) || !errors.As(test.err, &e) || e.Op == "" {
			t.Errorf("%s: %v, not %v", name, test.err, test.want)
		}
	}
	_ = m
}

func second(_ int64, err error) error { return err }

// Reading a remove event lets the removal go on; until then installs are refused.
func TestRemoveEvent(t *testing.T) {
	fd := open(t, uffd.Options{Features: uffd.EventRemove})
	m, r := memory(t, 8)
	if _, err := fd.Register(r, uffd.ModeMissing); err != nil {
		t.Fatal(err)
	}
	if _, err := fd.Zeropage(r, 0); err != nil {
		t.Fatal(err)
	}
	removed := make(chan error, 1)
	go func() { removed <- unix.Madvise(m[2*pageSize:5*pageSize], unix.MADV_DONTNEED) }()
	testkit.Await(t, fd.Int(), "the remove event")
	if n, err := fd.Copy(r.Start, make([]byte, pageSize), 0); n != 0 || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("copy while the event is unread: %d, %v", n, err)
	}
	var msgs [4]uffd.Message
	n, err := fd.Read(msgs[:])
	if n != 1 || err != nil {
		t.Fatalf("%d messages, %v", n, err)
	}
	if msgs[0].Kind() != uffd.EventKindRemove || msgs[0].Removed() != part(r, 2, 3) {
		t.Errorf("message %v %v", msgs[0].Kind(), msgs[0].Removed())
	}
	if err := <-removed; err != nil {
		t.Error(err)
	}
	if n, err := fd.Zeropage(part(r, 2, 3), 0); n != 3*pageSize || err != nil {
		t.Errorf("zeropage of what was removed: %d, %v", n, err)
	}
}

// A descriptor that polls readable may have nothing, when somebody else was faster.
func TestReadOfNothing(t *testing.T) {
	fd := open(t, uffd.Options{})
	if n, err := fd.Read(make([]uffd.Message, 1)); n != 0 || err != nil {
		t.Errorf("%d messages, %v", n, err)
	}
	if n, err := fd.Read(nil); n != 0 || err != nil {
		t.Errorf("into nothing: %d messages, %v", n, err)
	}
}

// The flag lies on the open file, so whoever else has it can take it away.
func TestReadDoesNotBlockWhateverTheFlag(t *testing.T) {
	fd := open(t, uffd.Options{})
	if err := unix.SetNonblock(fd.Int(), false); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		n, err := fd.Read(make([]uffd.Message, 1))
		if n != 0 {
			err = fmt.Errorf("%d messages", n)
		}
		read <- err
	}()
	select {
	case err := <-read:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it blocks, as it does before Linux 6.10")
	}
}

func TestClosed(t *testing.T) {
	fd := open(t, uffd.Options{})
	if err := errors.Join(fd.Close(), fd.Close()); err != nil {
		t.Error(err)
	}
	r := uffd.Range{0, pageSize}
	_, dup := fd.Dup()
	_, read := fd.Read(make([]uffd.Message, 1))
	_, info := fd.Info()
	_, register := fd.Register(r, uffd.ModeMissing)
	for name, err := range map[string]error{
		"dup": dup, "read": read, "info": info, "register": register, "unregister": fd.Unregister(r), "wake": fd.Wake(r),
		"copy": second(fd.Copy(0, nil, 0)), "zeropage": second(fd.Zeropage(r, 0)), "poison": second(fd.Poison(r, 0)),
	} {
		if !errors.Is(err, uffd.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if fd.Int() != -1 || fd.Disown() != -1 {
		t.Error("the number is still there")
	}
}

func TestAdopt(t *testing.T) {
	fd := open(t, uffd.Options{Features: uffd.EventRemove | uffd.ThreadID, Blocking: true})
	dup, err := fd.Dup()
	if err != nil {
		t.Fatal(err)
	}
	got, err := uffd.Adopt(dup.Disown())
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if got.Features() != uffd.EventRemove|uffd.ThreadID {
		t.Errorf("features %v", got.Features())
	}
	if n, err := got.Read(make([]uffd.Message, 1)); n != 0 || err != nil { // it would block
		t.Errorf("%d messages, %v", n, err)
	}
}

func TestAdoptRefuses(t *testing.T) {
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := uffd.Adopt(int(file.Fd())); !errors.Is(err, uffd.ErrNotUserfaultfd) || !strings.Contains(err.Error(), "/dev/null") {
		t.Errorf("a file: %v", err)
	}
	if _, err := uffd.Adopt(1 << 20); err == nil {
		t.Error("a number that is no descriptor was adopted")
	}
	raw, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		testkit.Skip(t, errno.Error(), os.Getuid() == 0)
	}
	defer unix.Close(int(raw))
	if _, err := uffd.Adopt(int(raw)); !errors.Is(err, uffd.ErrNotNegotiated) {
		t.Errorf("before the handshake: %v", err)
	}
}

// The calls of a handler's loop allocate nothing.
func TestHotCallsAllocateNothing(t *testing.T) {
	fd := open(t, uffd.Options{})
	_, r := memory(t, 4096)
	if _, err := fd.Register(r, uffd.ModeMissing); err != nil {
		t.Fatal(err)
	}
	src, msgs, p := make([]byte, pageSize), make([]uffd.Message, 8), uint64(0)
	if n := testing.AllocsPerRun(1000, func() {
		fd.Read(msgs)
		fd.Copy(part(r, p, 1).Start, src, 0)
		fd.Zeropage(part(r, p+1, 1), 0)
		fd.Wake(part(r, p, 2))
		p += 2
	}); n != 0 {
		t.Errorf("%v allocations a round", n)
	}
}
