package kvm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Where things are in the guest's physical memory: the code in the first page,
// the memory to be read from 2 MiB on, so that huge pages of the host can be huge
// pages of the guest, up to 3 GiB, behind which KVM wants some addresses for itself.
const (
	codeBase   = 0
	memoryBase = 2 << 20
	memorySize = 3 << 30
)

// sumPort is where the guest writes its sum.
const sumPort = 0xF4

// sumCode walks over ECX pages of 4096 bytes from address ESI, EBX pages at a
// time and round again at EDI pages, starting at page EDX. It needs no stack.
var sumCode = []byte{
	// next:
	0x89, 0xD0, //       mov  eax, edx
	0xC1, 0xE0, 0x0C, // shl  eax, 12
	0xD1, 0xC5, //       rol  ebp, 1
	0x03, 0x2C, 0x06, // add  ebp, [esi+eax]
	0x01, 0xDA, //       add  edx, ebx
	0x39, 0xFA, //       cmp  edx, edi
	0x72, 0x02, //       jb   inside
	0x29, 0xFA, //       sub  edx, edi
	// inside:
	0x49,       //       dec  ecx
	0x75, 0xEB, //       jnz  next
	0x89, 0xE8, //       mov  eax, ebp
	0xE7, sumPort, //    out  sumPort, eax
	0xF4, //             hlt
}

// Sum runs a guest whose memory is the given mappings, one behind the other, and
// which reads the first 32 bits of each page of 4096 bytes: the first page, then
// each time the one stride further on, round and round until all were read. The
// sum is rotated left by one before each addition, so that the order matters.
// stride must have no divisor in common with the number of pages.
//
// The mappings must be outside the Go heap. Their pages may be missing: KVM_RUN
// then waits, as a system call, for whoever answers the faults.
func Sum(memory [][]byte, stride uint64) (uint32, error) {
	pages, err := countPages(memory, stride)
	if err != nil {
		return 0, err
	}
	code, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, fmt.Errorf("map a page for the guest's code: %w", err)
	}
	defer unix.Munmap(code)
	copy(code, sumCode)
	m, err := newMachine()
	if err != nil {
		return 0, err
	}
	defer m.close()
	if err := m.addMemory(codeBase, code); err != nil {
		return 0, err
	}
	at := uint64(memoryBase)
	for _, bytes := range memory {
		if err := m.addMemory(at, bytes); err != nil {
			return 0, err
		}
		at += uint64(len(bytes))
	}
	if err := m.setProtectedMode(); err != nil {
		return 0, err
	}
	err = m.setRegisters(registers{rip: codeBase, rsi: memoryBase, rbx: stride, rcx: pages, rdi: pages, rflags: 2})
	if err != nil {
		return 0, err
	}
	sum, err := m.runToOutput(sumPort)
	if err != nil {
		return 0, err
	}
	return sum, m.runToHalt()
}

func countPages(memory [][]byte, stride uint64) (uint64, error) {
	var size uint64
	for _, m := range memory {
		size += uint64(len(m))
	}
	if size == 0 || size%4096 != 0 || size > memorySize {
		return 0, fmt.Errorf("guest memory of %d bytes: it must be whole pages and at most %d", size, uint64(memorySize))
	}
	pages := size / 4096
	a, b := pages, stride
	for b != 0 {
		a, b = b, a%b
	}
	if a != 1 || stride > pages {
		return 0, fmt.Errorf("stride %d does not reach each of %d pages once", stride, pages)
	}
	return pages, nil
}

// open opens /dev/kvm and checks that it speaks the one stable version.
func open() (int, error) {
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || errors.Is(err, unix.ENODEV) {
		return -1, fmt.Errorf("open /dev/kvm: %w: %w", ErrUnavailable, err)
	} else if err != nil {
		return -1, fmt.Errorf("open /dev/kvm: %w", err)
	}
	version, err := ioctl(fd, kvmGetAPIVersion, 0)
	if err == nil && version != apiVersion {
		err = fmt.Errorf("%w: it has version %d of the interface, not %d", ErrUnavailable, version, apiVersion)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("KVM_GET_API_VERSION: %w", err)
	}
	return fd, nil
}
