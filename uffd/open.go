package uffd

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// devicePath grants userfaultfds by file permission (Linux 6.1).
const devicePath = "/dev/userfaultfd"

// Options says what kind of userfaultfd to open. The zero value asks for
// kernel-mode faults, no features, and non-blocking reads.
type Options struct {
	// Features must all be granted, or Open fails with ErrUnsupported.
	Features Features
	// Optional features are asked for where the kernel has them; FD.Features
	// tells which were got.
	Optional Features
	// UserModeOnly leaves faults that the kernel itself takes, in read(2) say,
	// unanswered: they fail with EFAULT. It needs no privilege (Linux 5.11).
	UserModeOnly bool
	// Blocking makes Read wait for a message. Polling a blocking userfaultfd
	// reports POLLERR, so poll loops must leave this off.
	Blocking bool
}

// Open makes a userfaultfd for the calling process's memory, close-on-exec, and
// performs the UFFDIO_API handshake.
//
// /dev/userfaultfd is tried first, since its permissions are the finer tool, then
// the system call, which wants CAP_SYS_PTRACE, or UserModeOnly, or the sysctl
// vm.unprivileged_userfaultfd.
func Open(o Options) (*FD, error) {
	features := o.Features
	if o.Optional != 0 {
		known, err := probe(o)
		if err != nil {
			return nil, err
		}
		features |= o.Optional & known
	}
	fd, err := create(o)
	if err != nil {
		return nil, err
	}
	if _, errno := handshake(fd, features); errno != 0 {
		unix.Close(fd)
		return nil, handshakeError(o, features, errno)
	}
	return newFD(fd, features, o.Blocking), nil
}

// create makes a descriptor that has not been through the handshake.
func create(o Options) (int, error) {
	flags := unix.O_CLOEXEC
	if !o.Blocking {
		flags |= unix.O_NONBLOCK
	}
	if o.UserModeOnly {
		flags |= flagUserModeOnly
	}
	fd, deviceErr := createByDevice(flags)
	if deviceErr == nil {
		return fd, nil
	}
	r, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, uintptr(flags), 0, 0)
	if errno == 0 {
		return int(r), nil
	}
	hint := ""
	if errno == unix.EPERM {
		hint = "; give this user read and write access to " + devicePath + ", or CAP_SYS_PTRACE, or ask for user-mode faults only"
	}
	return -1, fmt.Errorf("open a userfaultfd: %w; userfaultfd(2): %w%s", deviceErr, errno, hint)
}

func createByDevice(flags int) (int, error) {
	dev, err := unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", devicePath, err)
	}
	defer unix.Close(dev)
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(dev), userfaultfdIocNew, uintptr(flags))
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
		default:
			return -1, fmt.Errorf("USERFAULTFD_IOC_NEW on %s: %w", devicePath, errno)
		}
	}
}

// handshake issues UFFDIO_API and gives the features that the kernel knows.
func handshake(fd int, want Features) (Features, unix.Errno) {
	args := uffdioAPIArgs{api: uffdAPI, features: uint64(want)}
	errno := ioctl(fd, uffdioAPI, unsafe.Pointer(&args))
	return Features(args.features), errno
}

// probe asks for the features this kernel knows. It costs a descriptor of its
// own, because one that has been through the handshake can't go through again.
func probe(o Options) (Features, error) {
	fd, err := create(o)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	known, errno := handshake(fd, 0)
	if errno != 0 {
		return 0, fmt.Errorf("UFFDIO_API: %w", errno)
	}
	return known, nil
}

// handshakeError explains a refused handshake by what the kernel does know.
func handshakeError(o Options, want Features, errno unix.Errno) error {
	if errno == unix.EPERM && want.Has(EventFork) {
		return fmt.Errorf("UFFDIO_API with %v: %w (EVENT_FORK needs CAP_SYS_PTRACE)", want, errno)
	}
	if known, err := probe(o); err == nil && !known.Has(want) {
		return fmt.Errorf("UFFDIO_API: %v: %w", want&^known, errors.Join(ErrUnsupported, errno))
	}
	return fmt.Errorf("UFFDIO_API with %v: %w", want, errno)
}
