package uffd

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RegisterMode is what kinds of fault a registration reports.
type RegisterMode uint64

// The modes of UFFDIO_REGISTER.
const (
	ModeMissing RegisterMode = 1 << iota // the page is not there; Linux 4.3
	ModeWP                               // a write to a write-protected page; 5.7
	ModeMinor                            // the page is in the page cache but not mapped; 5.13
)

// Ioctls is a set of operations, as UFFDIO_REGISTER reports which it allows.
type Ioctls uint64

// The operations on a registered range. The bit is the ioctl's number.
const (
	IoctlWake         Ioctls = 1 << nrWake
	IoctlCopy         Ioctls = 1 << nrCopy
	IoctlZeropage     Ioctls = 1 << nrZeropage
	IoctlMove         Ioctls = 1 << nrMove
	IoctlWriteprotect Ioctls = 1 << nrWriteprotect
	IoctlContinue     Ioctls = 1 << nrContinue
	IoctlPoison       Ioctls = 1 << nrPoison
)

// Has reports whether every operation of want is in the set.
func (i Ioctls) Has(want Ioctls) bool { return i&want == want }

// String lists the operations' names, separated by spaces.
func (i Ioctls) String() string {
	var names []string
	for _, n := range ioctlNames {
		if i.Has(n.bit) {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, " ")
}

var ioctlNames = [...]struct {
	bit  Ioctls
	name string
}{
	{IoctlWake, "WAKE"}, {IoctlCopy, "COPY"}, {IoctlZeropage, "ZEROPAGE"}, {IoctlMove, "MOVE"},
	{IoctlWriteprotect, "WRITEPROTECT"}, {IoctlContinue, "CONTINUE"}, {IoctlPoison, "POISON"},
}

// Register makes faults of the given kinds in the range come to this descriptor,
// and returns the operations that the memory allows. The range must be aligned
// to the memory's page size and wholly mapped. It may be registered already with
// the same descriptor; the mode is then replaced.
//
//	EBUSY   registered with another userfaultfd
//	EINVAL  misaligned, empty, not mapped, or memory that can't do this mode
//	ENOMEM  the address space is gone, or out of memory
//	EPERM   shared file mapping without write permission
//
// ioctl_userfaultfd(2), "UFFDIO_REGISTER"; Linux 4.3.
func (f *FD) Register(r Range, mode RegisterMode) (Ioctls, error) {
	args := uffdioRegisterArgs{rng: r, mode: uint64(mode)}
	if err := f.rangeCall("UFFDIO_REGISTER", uffdioRegister, r, unsafe.Pointer(&args)); err != nil {
		return 0, err
	}
	return Ioctls(args.ioctls), nil
}

// Unregister ends reporting in the range and wakes whoever waits there; pages
// still missing are from then on filled by the kernel: with zeros, in anonymous
// memory. A range that is not registered is no error.
//
//	EINVAL  misaligned, empty, or not mapped
//	ENOMEM  the address space is gone
//
// ioctl_userfaultfd(2), "UFFDIO_UNREGISTER"; Linux 4.3.
func (f *FD) Unregister(r Range) error {
	args := r
	return f.rangeCall("UFFDIO_UNREGISTER", uffdioUnregister, r, unsafe.Pointer(&args))
}

// Wake lets threads that wait for a fault in the range try their access again. A
// page that is still missing is then reported anew. It succeeds even if the
// address space is gone.
//
//	EINVAL  misaligned or empty
//
// ioctl_userfaultfd(2), "UFFDIO_WAKE"; Linux 4.3.
func (f *FD) Wake(r Range) error {
	args := r
	return f.rangeCall("UFFDIO_WAKE", uffdioWake, r, unsafe.Pointer(&args))
}

// rangeCall issues an ioctl that either does the whole range or nothing.
func (f *FD) rangeCall(op string, request uintptr, r Range, args unsafe.Pointer) error {
	fd := f.Int()
	if fd < 0 {
		return ErrClosed
	}
	if r.overflows() {
		return &Error{Op: op, Range: r, Errno: unix.EINVAL}
	}
	if errno := ioctl(fd, request, args); errno != 0 {
		return &Error{Op: op, Range: r, Errno: errno}
	}
	return nil
}
