package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"

	"golang.org/x/sys/unix"

	"faultline/handoff"
	"faultline/handoff/firecracker"
)

// A handler says what a process of this program is to serve, and how. It travels
// as the process's argument.
type handler struct {
	Socket string
	CPU    int    // that the serving thread is bound to, or -1
	File   string // the raw content, or
	Store  string // where the image
	Image  string // of this name is

	Naive bool // one page a fault, by hand; otherwise Faultline

	// The rest is for Faultline only.
	BlockSize  uint64
	NoPrefetch bool
	Load       string // a file to pack again and again meanwhile
	Profile    string // a file to write a CPU profile to
}

const handlerCommand = "handler"

// runHandler is called first of all. In a process that was started as a handler
// it is one, and does not return.
func runHandler() {
	if len(os.Args) != 3 || os.Args[1] != handlerCommand {
		return
	}
	var h handler
	err := json.Unmarshal([]byte(os.Args[2]), &h)
	if err == nil {
		err = h.serve(context.Background())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "handler: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (h handler) serve(ctx context.Context) (err error) {
	source, err := h.source(ctx)
	if err != nil {
		return err
	}
	l, err := firecracker.Listen(h.Socket, firecracker.Options{Refused: func(err error) { fmt.Fprintln(os.Stderr, err) }})
	if err != nil {
		return err
	}
	defer l.Close()
	if h.Load != "" {
		stop, err := keepBusy(ctx, h.Load)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	if h.Profile != "" {
		f, err := os.Create(h.Profile)
		if err != nil {
			return err
		}
		defer f.Close()
		pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	runtime.GC() // what setting up has left is nobody's latency
	fmt.Println(ready)
	client, err := l.Accept(ctx)
	if err != nil {
		return err
	}
	if h.Naive {
		return h.serveNaively(client, source.(*mappedFile).content)
	}
	return h.serveSession(client, source)
}

// serveNaively is the loop that everyone writes by hand: wait, read a message,
// copy a page. It goes on until it is killed.
func (h handler) serveNaively(client *handoff.Client, content []byte) error {
	if h.CPU >= 0 {
		runtime.LockOSThread()
		var set unix.CPUSet
		set.Set(h.CPU)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return err
		}
	}
	return naive(client, content)
}
