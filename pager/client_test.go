package pager

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"faultline/internal/testkit"
	"faultline/uffd"
)

// The client process of the tests that run on the real kernel. It is this test
// binary again: a thread must not wait for a page in the process that serves it.
// Its threads do one thing after another, as they are told, and say what they saw.

const clientEnv = "FAULTLINE_PAGER_CLIENT"

func TestMain(m *testing.M) {
	if os.Getenv(clientEnv) != "" {
		clientMain()
	}
	testkit.Main(m)
}

// Descriptors that the client inherits.
const (
	controlFD     = 3
	firstThreadFD = 4
)

// command is what a thread, or the process as a whole, is told, in a datagram.
type command struct{ Op, Page, Count, Value uint64 }

const (
	cmdLoad uint64 = iota
	cmdStore
	cmdRemove
	cmdSplit
)

// report is a thread's answer.
type report struct{ Bus, Value uint64 }

func clientMain() {
	debug.SetGCPercent(-1) // stopping the world would wait for the faults
	runtime.GOMAXPROCS(2 * clientThreads)
	memory := must(unix.Mmap(-1, 0, clientPages*modelPage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS))
	check(unix.Madvise(memory, unix.MADV_NOHUGEPAGE))
	check(unix.Mprotect(memory[firstPages*modelPage:][:gapPages*modelPage], unix.PROT_NONE))
	base := uint64(uintptr(unsafe.Pointer(&memory[0])))
	fd := must(uffd.Open(uffd.Options{Features: uffd.EventRemove}))
	for _, r := range clientRegions(base) {
		must(fd.Register(uffd.Range{Start: r.Address, Len: r.Size}, uffd.ModeMissing))
	}
	ids := make([]uint64, clientThreads)
	ready := make(chan struct{})
	for t := range clientThreads {
		go clientThread(memory, t, &ids[t], ready)
		<-ready
	}
	hello := binary.NativeEndian.AppendUint64(nil, base)
	for _, id := range ids {
		hello = binary.NativeEndian.AppendUint64(hello, id)
	}
	check(unix.Sendmsg(controlFD, hello, unix.UnixRights(fd.Int()), nil, 0))
	clientControl(memory)
}

// clientControl splits mappings, by advice that has no effect on faults.
func clientControl(memory []byte) {
	for {
		c, ok := receive[command](controlFD)
		if !ok {
			os.Exit(0)
		}
		part := memory[c.Page*modelPage:][:c.Count*modelPage]
		dump, fork := unix.MADV_DODUMP, unix.MADV_DOFORK
		if c.Value&1 != 0 {
			dump = unix.MADV_DONTDUMP
		}
		if c.Value&2 != 0 {
			fork = unix.MADV_DONTFORK
		}
		check(unix.Madvise(part, dump))
		check(unix.Madvise(part, fork))
		transmit(controlFD, report{})
	}
}

func clientThread(memory []byte, t int, id *uint64, ready chan<- struct{}) {
	runtime.LockOSThread()
	debug.SetPanicOnFault(true)
	*id = uint64(unix.Gettid())
	ready <- struct{}{}
	for {
		c, ok := receive[command](firstThreadFD + t)
		if !ok {
			return
		}
		transmit(firstThreadFD+t, obey(memory, c))
	}
}

func obey(memory []byte, c command) (r report) {
	defer func() {
		if recover() != nil {
			r = report{Bus: 1}
		}
	}()
	word := (*uint64)(unsafe.Pointer(&memory[c.Page*modelPage]))
	switch c.Op {
	case cmdLoad:
		return report{Value: *word}
	case cmdStore:
		*word = c.Value
	case cmdRemove:
		check(unix.Madvise(memory[c.Page*modelPage:][:c.Count*modelPage], unix.MADV_DONTNEED))
	}
	return report{Value: c.Value}
}

// receive takes one datagram; ok is false when the other side is gone.
func receive[T any](fd int) (v T, ok bool) {
	buf := make([]byte, 256)
	n, err := unix.Read(fd, buf)
	for err == unix.EINTR {
		n, err = unix.Read(fd, buf)
	}
	if err != nil || n == 0 {
		return v, false
	}
	_, err = binary.Decode(buf[:n], binary.NativeEndian, &v)
	return v, err == nil
}

func transmit(fd int, v any) {
	check(must(unix.Write(fd, must(binary.Append(nil, binary.NativeEndian, v)))))
}

// must and check end the client: it runs as a process of its own.
func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(failure any) {
	if err, ok := failure.(error); ok && err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}
