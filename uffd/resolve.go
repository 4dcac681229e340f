package uffd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// CopyMode modifies Copy.
type CopyMode uint64

// The modes of UFFDIO_COPY.
const (
	CopyDontWake CopyMode = 1 << iota // leave waiting threads asleep; Linux 4.3
	CopyWP                            // install the pages write-protected; 5.7
)

// ZeropageMode modifies Zeropage.
type ZeropageMode uint64

// ZeropageDontWake leaves waiting threads asleep.
const ZeropageDontWake ZeropageMode = 1

// PoisonMode modifies Poison.
type PoisonMode uint64

// PoisonDontWake leaves waiting threads asleep.
const PoisonDontWake PoisonMode = 1

// Copy installs src at address dst, page by page, and wakes those who wait
// there. dst and len(src) must be multiples of the memory's page size, and the
// range must lie inside one registered mapping; src itself need not be aligned.
// Memory outside the Go heap, a mapped file for instance, is welcome as source:
// a page of it that can't be read is EFAULT, not a signal.
//
// The count is the bytes installed, and is valid, as a prefix, when there is an
// error too:
//
//	EAGAIN  an event is unread (read it first), a lock was contended, or only a
//	        prefix was installed; retry the rest
//	EEXIST  the first page is present; its waiters were not woken, see Wake
//	EFAULT  src can't be read
//	EINVAL  misaligned, empty, overflowing, or an unknown mode
//	ENOENT  not inside one registered mapping
//	ENOMEM  out of memory in the client's control group, or no huge page is free
//	ESRCH   the address space is gone
//
// ioctl_userfaultfd(2), "UFFDIO_COPY"; Linux 4.3.
func (f *FD) Copy(dst uint64, src []byte, mode CopyMode) (int64, error) {
	fd := f.Int()
	if fd < 0 {
		return 0, ErrClosed
	}
	r := Range{Start: dst, Len: uint64(len(src))}
	args := uffdioCopyArgs{dst: dst, src: unsafe.Pointer(unsafe.SliceData(src)), len: r.Len, mode: uint64(mode)}
	errno := ioctl(fd, uffdioCopy, unsafe.Pointer(&args))
	return progress("UFFDIO_COPY", r, args.copy, errno)
}

// Zeropage installs zeros in the range and wakes those who wait there. Anonymous
// and shared memory can; hugetlbfs can't (EINVAL): Copy zeros there. Alignment,
// count and errors are those of Copy.
//
// ioctl_userfaultfd(2), "UFFDIO_ZEROPAGE"; Linux 4.3.
func (f *FD) Zeropage(r Range, mode ZeropageMode) (int64, error) {
	return f.pageCall("UFFDIO_ZEROPAGE", uffdioZeropage, r, uint64(mode))
}

// Poison makes every access to the missing pages of the range raise SIGBUS, or
// fail with EFAULT inside a system call, and wakes those who wait there. It
// works whether or not the Poison feature was negotiated. Copy can replace a
// poisoned page. Alignment, count and errors are those of Copy.
//
// ioctl_userfaultfd(2), "UFFDIO_POISON"; Linux 6.6.
func (f *FD) Poison(r Range, mode PoisonMode) (int64, error) {
	return f.pageCall("UFFDIO_POISON", uffdioPoison, r, uint64(mode))
}

// pageCall issues an ioctl that works page by page and may stop half-way.
func (f *FD) pageCall(op string, request uintptr, r Range, mode uint64) (int64, error) {
	fd := f.Int()
	if fd < 0 {
		return 0, ErrClosed
	}
	args := uffdioRangeArgs{rng: r, mode: mode}
	errno := ioctl(fd, request, unsafe.Pointer(&args))
	return progress(op, r, args.done, errno)
}

// progress reads the count that the kernel left. When the call fails the field
// holds the bytes done, or a negative errno, or the zero that we put there: the
// kernel leaves it alone when it gives up early.
func progress(op string, r Range, done int64, errno unix.Errno) (int64, error) {
	done = max(done, 0)
	if errno == 0 {
		return done, nil
	}
	return done, &Error{Op: op, Range: r, Done: done, Errno: errno}
}
