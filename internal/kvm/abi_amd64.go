package kvm

import "unsafe"

// The numbers and structures of include/uapi/linux/kvm.h and, for amd64,
// asm/kvm.h.

const apiVersion = 12

const (
	kvmType  = 0xAE << 8
	iocWrite = 1 << 30
	iocRead  = 2 << 30
)

const (
	kvmGetAPIVersion       = kvmType
	kvmCreateVM            = kvmType | 0x01
	kvmGetVCPUMmapSize     = kvmType | 0x04
	kvmCreateVCPU          = kvmType | 0x41
	kvmSetUserMemoryRegion = iocWrite | unsafe.Sizeof(userMemoryRegion{})<<16 | kvmType | 0x46
	kvmSetTSSAddr          = kvmType | 0x47
	kvmSetIdentityMapAddr  = iocWrite | 8<<16 | kvmType | 0x48
	kvmRun                 = kvmType | 0x80
	kvmSetRegs             = iocWrite | unsafe.Sizeof(registers{})<<16 | kvmType | 0x82
	kvmGetSregs            = iocRead | unsafe.Sizeof(specialRegisters{})<<16 | kvmType | 0x83
	kvmSetSregs            = iocWrite | unsafe.Sizeof(specialRegisters{})<<16 | kvmType | 0x84
)

// KVM_EXIT_*.
const (
	exitIO       = 2
	exitHalt     = 5
	exitMMIO     = 6
	exitShutdown = 8
)

// userMemoryRegion is struct kvm_userspace_memory_region.
type userMemoryRegion struct {
	slot          uint32
	flags         uint32
	guestPhysAddr uint64
	memorySize    uint64
	userspaceAddr uint64
}

// registers is struct kvm_regs.
type registers struct {
	rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp uint64
	r8, r9, r10, r11, r12, r13, r14, r15   uint64
	rip, rflags                            uint64
}

// segment is struct kvm_segment.
type segment struct {
	base                           uint64
	limit                          uint32
	selector                       uint16
	typ, present, dpl, db, s, l, g uint8
	avl, unusable, padding         uint8
}

// descriptorTable is struct kvm_dtable.
type descriptorTable struct {
	base    uint64
	limit   uint16
	padding [3]uint16
}

// specialRegisters is struct kvm_sregs.
type specialRegisters struct {
	cs, ds, es, fs, gs, ss, tr, ldt segment
	gdt, idt                        descriptorTable
	cr0, cr2, cr3, cr4, cr8         uint64
	efer, apicBase                  uint64
	interruptBitmap                 [4]uint64
}

// runState is the head of struct kvm_run, with the member of its union that
// describes a port access.
type runState struct {
	_          [8]byte
	exitReason uint32
	_          [20]byte
	io         struct {
		direction  uint8 // 1 is out
		size       uint8 // bytes
		port       uint16
		count      uint32
		dataOffset uint64 // of the value, from the start of struct kvm_run
	}
}
