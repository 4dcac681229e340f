package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// A machine is what a reader must know before he compares figures with others.
type machine struct {
	CPU       string `json:"cpu"`
	CPUs      int    `json:"cpus"`
	Kernel    string `json:"kernel"`
	Go        string `json:"go"`
	LoadFirst string `json:"loadBefore"` // how busy others kept the machine
	Rounds    int    `json:"rounds"`
	Size      int64  `json:"mib"`
	SameCore  int    `json:"sameCore"`
	OtherCore int    `json:"otherCore"` // -1: there is none
}

func (r *rig) machine() machine {
	m := machine{CPU: cpuModel(), CPUs: runtime.NumCPU(), Go: runtime.Version(), Rounds: r.rounds, Size: r.size, SameCore: r.cpus[0], OtherCore: -1}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.LoadFirst, _, _ = strings.Cut(string(load), " ")
	}
	if len(r.cpus) > 1 {
		m.OtherCore = r.cpus[1]
	}
	return m
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func (m machine) print(w io.Writer) {
	fmt.Fprintf(w, "%d × %s, Linux %s, %s; load before: %s\n", m.CPUs, m.CPU, m.Kernel, m.Go, m.LoadFirst)
	fmt.Fprintf(w, "%d MiB in pages of 4 KiB, %d interleaved rounds; all files are in the page cache\n", m.Size, m.Rounds)
	fmt.Fprintf(w, "client on CPU %d; same core: the serving thread too; ", m.SameCore)
	if m.OtherCore >= 0 {
		fmt.Fprintf(w, "other core: on CPU %d; ", m.OtherCore)
	}
	fmt.Fprint(w, "anywhere: nothing bound\n\n")
}
