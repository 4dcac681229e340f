package kvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A machine is a virtual machine with one processor.
type machine struct {
	dev, vm, cpu int
	shared       []byte // struct kvm_run, and what follows it
	slots        uint32
}

func newMachine() (*machine, error) {
	m := &machine{dev: -1, vm: -1, cpu: -1}
	if err := m.create(); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *machine) create() (err error) {
	if m.dev, err = open(); err != nil {
		return err
	}
	if m.vm, err = ioctl(m.dev, kvmCreateVM, 0); err != nil {
		return fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	// Intel processors want three pages and one for use of their own.
	if _, err := ioctl(m.vm, kvmSetTSSAddr, 0xFFFBD000); err != nil {
		return fmt.Errorf("KVM_SET_TSS_ADDR: %w", err)
	}
	identity := uint64(0xFFFBC000)
	if err := ioctlPointer(m.vm, kvmSetIdentityMapAddr, unsafe.Pointer(&identity)); err != nil {
		return fmt.Errorf("KVM_SET_IDENTITY_MAP_ADDR: %w", err)
	}
	if m.cpu, err = ioctl(m.vm, kvmCreateVCPU, 0); err != nil {
		return fmt.Errorf("KVM_CREATE_VCPU: %w", err)
	}
	size, err := ioctl(m.dev, kvmGetVCPUMmapSize, 0)
	if err != nil {
		return fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %w", err)
	}
	if m.shared, err = unix.Mmap(m.cpu, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map struct kvm_run, %d bytes: %w", size, err)
	}
	return nil
}

func (m *machine) close() {
	if m.shared != nil {
		unix.Munmap(m.shared)
	}
	for _, fd := range []int{m.cpu, m.vm, m.dev} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// addMemory shows bytes to the guest at a physical address.
func (m *machine) addMemory(at uint64, bytes []byte) error {
	region := userMemoryRegion{
		slot: m.slots, guestPhysAddr: at, memorySize: uint64(len(bytes)),
		userspaceAddr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(bytes)))),
	}
	if err := ioctlPointer(m.vm, kvmSetUserMemoryRegion, unsafe.Pointer(&region)); err != nil {
		return fmt.Errorf("KVM_SET_USER_MEMORY_REGION, %d bytes at %#x: %w", len(bytes), at, err)
	}
	m.slots++
	return nil
}

// setProtectedMode makes the processor run 32-bit code without paging, with all
// segments from 0 to 4 GiB.
func (m *machine) setProtectedMode() error {
	var s specialRegisters
	if err := ioctlPointer(m.cpu, kvmGetSregs, unsafe.Pointer(&s)); err != nil {
		return fmt.Errorf("KVM_GET_SREGS: %w", err)
	}
	const readWrite, readExecute = 3, 11 // accessed, both
	flat := segment{limit: 0xFFFFFFFF, selector: 16, typ: readWrite, present: 1, db: 1, s: 1, g: 1}
	s.ds, s.es, s.fs, s.gs, s.ss = flat, flat, flat, flat, flat
	s.cs = flat
	s.cs.selector, s.cs.typ = 8, readExecute
	s.cr0 |= 1 // PE
	if err := ioctlPointer(m.cpu, kvmSetSregs, unsafe.Pointer(&s)); err != nil {
		return fmt.Errorf("KVM_SET_SREGS: %w", err)
	}
	return nil
}

func (m *machine) setRegisters(r registers) error {
	if err := ioctlPointer(m.cpu, kvmSetRegs, unsafe.Pointer(&r)); err != nil {
		return fmt.Errorf("KVM_SET_REGS: %w", err)
	}
	return nil
}

// runToOutput runs the guest until it writes 32 bits to the port.
func (m *machine) runToOutput(port uint16) (uint32, error) {
	state, err := m.run(exitIO)
	if err != nil {
		return 0, err
	}
	io := state.io
	if io.direction != 1 || io.size != 4 || io.port != port {
		return 0, fmt.Errorf("the guest accessed port %#x (direction %d, %d bytes)", io.port, io.direction, io.size)
	}
	return binary.LittleEndian.Uint32(m.shared[io.dataOffset:]), nil
}

// runToHalt runs the guest until it halts.
func (m *machine) runToHalt() error {
	_, err := m.run(exitHalt)
	return err
}

// run enters the guest until it leaves for the given reason. Signals make
// KVM_RUN return early; the guest then goes on where it was.
func (m *machine) run(reason uint32) (*runState, error) {
	for {
		_, err := ioctl(m.cpu, kvmRun, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EFAULT) {
			err = fmt.Errorf("%w (a page of the guest's memory can't be had)", err)
		}
		if err != nil {
			return nil, fmt.Errorf("KVM_RUN: %w", err)
		}
		state := (*runState)(unsafe.Pointer(unsafe.SliceData(m.shared)))
		if state.exitReason != reason {
			return nil, fmt.Errorf("KVM_RUN: the guest did not leave by %s but by %s", exitName(reason), exitName(state.exitReason))
		}
		return state, nil
	}
}

// exitName explains the exits that occur when something is wrong.
func exitName(reason uint32) string {
	switch reason {
	case exitIO:
		return "KVM_EXIT_IO"
	case exitHalt:
		return "KVM_EXIT_HLT"
	case exitMMIO:
		return "KVM_EXIT_MMIO (an address without memory, or memory that can't be had)"
	case exitShutdown:
		return "KVM_EXIT_SHUTDOWN (a triple fault)"
	}
	return fmt.Sprintf("exit reason %d", reason)
}

func ioctl(fd int, request, arg uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, arg)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

func ioctlPointer(fd int, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}
