package uffd_test

import (
	"errors"
	"fmt"
	"log"
	"unsafe"

	"golang.org/x/sys/unix"

	"faultline/uffd"
)

// Fill memory before anybody touches it, and see how far a copy came when
// something was in its way. To answer faults, read messages in another process than
// the one whose memory it is; package session does.
func ExampleFD_Copy() {
	fd, err := uffd.Open(uffd.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer fd.Close()
	memory, err := unix.Mmap(-1, 0, 4*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		log.Fatal(err)
	}
	defer unix.Munmap(memory)
	pages := uffd.Range{Start: uint64(uintptr(unsafe.Pointer(&memory[0]))), Len: 4 * 4096}
	allowed, err := fd.Register(pages, uffd.ModeMissing)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("may copy:", allowed.Has(uffd.IoctlCopy))

	content := make([]byte, 4*4096)
	content[0] = 42
	fd.Zeropage(uffd.Range{Start: pages.Start + 2*4096, Len: 4096}, 0)
	n, err := fd.Copy(pages.Start, content, 0)
	fmt.Println("pages copied:", n/4096, errors.Is(err, unix.EAGAIN), "first byte:", memory[0])
	// Output:
	// may copy: true
	// pages copied: 2 true first byte: 42
}
