// Command faultline packs memory snapshots into images, and serves their pages to
// the processes that restore them, as they touch them. See doc/cli.md.
package main

import (
	"os"
	"runtime"

	"faultline/handoff/handofftest"
)

func main() {
	handofftest.Main() // the demo runs this program again as its client
	setProcs()
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// setProcs leaves the threads that answer faults a processor of the scheduler when
// all the CPUs decode: they have no claim to one. With two CPUs, GOMAXPROCS = 2 and
// two busy goroutines, a fault's p99 was 15 ms; with GOMAXPROCS = 4 it was 42 µs.
func setProcs() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(4, 2*runtime.NumCPU()))
	}
}
