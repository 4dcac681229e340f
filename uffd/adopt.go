package uffd

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// linkName is what /proc/self/fd/N of a userfaultfd reads.
const linkName = "anon_inode:[userfaultfd]"

// initialized is set in the kernel's own copy of the features once UFFDIO_API
// was issued (fs/userfaultfd.c, UFFD_FEATURE_INITIALIZED).
const initialized = 1 << 31

// Adopt takes ownership of descriptor fd, which came from another process or an
// earlier program, after checking that it is a userfaultfd on which UFFDIO_API
// was issued. The descriptor is made close-on-exec and non-blocking; the latter
// lies on the open file, which the sender may share.
//
// When Adopt fails, fd still belongs to the caller.
func Adopt(fd int) (*FD, error) {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("adopt descriptor %d: %w", fd, err)
	}
	if link != linkName {
		return nil, fmt.Errorf("adopt descriptor %d, which is %q: %w", fd, link, ErrNotUserfaultfd)
	}
	info, err := readInfo(fd)
	if err != nil {
		return nil, fmt.Errorf("adopt descriptor %d: %w", fd, err)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("adopt descriptor %d: set O_NONBLOCK: %w", fd, err)
	}
	return newFD(fd, info.Features, false), nil
}

// Info is what /proc/self/fdinfo says about a userfaultfd.
type Info struct {
	// Pending faults have not been read; Total counts those and the faults that
	// were read and still wait.
	Pending, Total int
	// Features are those negotiated.
	Features Features
}

// Info reads the descriptor's state from /proc. It is for checks and tests, not
// for hot paths.
func (f *FD) Info() (Info, error) {
	fd := f.Int()
	if fd < 0 {
		return Info{}, ErrClosed
	}
	return readInfo(fd)
}

func readInfo(fd int) (Info, error) {
	path := fmt.Sprintf("/proc/self/fdinfo/%d", fd)
	text, err := os.ReadFile(path)
	if err != nil {
		return Info{}, err
	}
	info, err := parseInfo(text)
	if err != nil {
		return Info{}, fmt.Errorf("%s: %w", path, err)
	}
	return info, nil
}

// parseInfo reads the lines that userfaultfd_show_fdinfo writes: "pending:\t0",
// "total:\t0" and "API:\taa:FEATURES:KNOWN" in hexadecimal. Others are skipped.
func parseInfo(text []byte) (Info, error) {
	var info Info
	var api, known uint64
	found := 0
	for line := range bytes.Lines(text) {
		s := string(bytes.TrimSpace(line))
		if n, _ := fmt.Sscanf(s, "pending: %d", &info.Pending); n == 1 {
			found++
		}
		if n, _ := fmt.Sscanf(s, "total: %d", &info.Total); n == 1 {
			found++
		}
		if n, _ := fmt.Sscanf(s, "API: %x:%x:%x", &api, (*uint64)(&info.Features), &known); n == 3 {
			found++
		}
	}
	if found != 3 || api != uffdAPI {
		return Info{}, fmt.Errorf("%q: %w", text, ErrNotUserfaultfd)
	}
	if info.Features&initialized == 0 {
		return Info{}, ErrNotNegotiated
	}
	info.Features &^= initialized
	return info, nil
}
