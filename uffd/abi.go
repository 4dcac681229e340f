package uffd

import "unsafe"

// The numbers and structures of include/uapi/linux/userfaultfd.h. The header's
// names are kept so that they can be compared with it.

const uffdAPI = 0xAA

// ioctl request numbers by the asm-generic layout, which amd64 and arm64 share:
// direction in the two top bits, then 14 bits of size, 8 of type, 8 of number.
const (
	iocNone  = 0 << 30
	iocWrite = 1 << 30
	iocRead  = 2 << 30
	iocType  = uffdAPI << 8
)

const (
	userfaultfdIocNew = iocNone | iocType | nrIocNew
	uffdioAPI         = iocRead | iocWrite | unsafe.Sizeof(uffdioAPIArgs{})<<16 | iocType | nrAPI
	uffdioRegister    = iocRead | iocWrite | unsafe.Sizeof(uffdioRegisterArgs{})<<16 | iocType | nrRegister
	// UNREGISTER and WAKE are _IOR in the header although they only take a range.
	uffdioUnregister = iocRead | unsafe.Sizeof(Range{})<<16 | iocType | nrUnregister
	uffdioWake       = iocRead | unsafe.Sizeof(Range{})<<16 | iocType | nrWake
	uffdioCopy       = iocRead | iocWrite | unsafe.Sizeof(uffdioCopyArgs{})<<16 | iocType | nrCopy
	uffdioZeropage   = iocRead | iocWrite | unsafe.Sizeof(uffdioRangeArgs{})<<16 | iocType | nrZeropage
	uffdioPoison     = iocRead | iocWrite | unsafe.Sizeof(uffdioRangeArgs{})<<16 | iocType | nrPoison
)

const (
	nrIocNew       = 0x00
	nrRegister     = 0x00
	nrUnregister   = 0x01
	nrWake         = 0x02
	nrCopy         = 0x03
	nrZeropage     = 0x04
	nrMove         = 0x05
	nrWriteprotect = 0x06
	nrContinue     = 0x07
	nrPoison       = 0x08
	nrAPI          = 0x3F
)

// flagUserModeOnly is UFFD_USER_MODE_ONLY of userfaultfd(2).
const flagUserModeOnly = 1

// uffdioAPIArgs is struct uffdio_api.
type uffdioAPIArgs struct {
	api      uint64
	features uint64
	ioctls   uint64
}

// uffdioRegisterArgs is struct uffdio_register.
type uffdioRegisterArgs struct {
	rng    Range
	mode   uint64
	ioctls uint64
}

// uffdioCopyArgs is struct uffdio_copy. The source is a pointer so that the
// garbage collector and a moving stack know of it for as long as the call runs.
type uffdioCopyArgs struct {
	dst  uint64
	src  unsafe.Pointer
	len  uint64
	mode uint64
	copy int64
}

// uffdioRangeArgs is struct uffdio_zeropage and struct uffdio_poison, which are
// the same: a range, a mode, and the bytes done or a negative errno.
type uffdioRangeArgs struct {
	rng  Range
	mode uint64
	done int64
}

// uffdMsg is struct uffd_msg, 32 bytes, with its union as three words.
type uffdMsg struct {
	event uint8
	_     uint8
	_     uint16
	_     uint32
	arg   [3]uint64
}
