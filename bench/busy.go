package main

import (
	"fmt"
	"runtime"
	"slices"
)

// busy asks what a fault costs while the server's process keeps every CPU busy with
// packing, against an idle one. Each touch is a fault on another block.
func (r *rig) busy() *group {
	in := r.inputs.random
	const blockPages = 64
	touches := []string{"-o", "random", "-t", fmt.Sprint(blockPages)}
	g := &group{name: "busy", title: "one fault a block, CPUs busy packing"}
	sources := []struct {
		name    string
		handler handler
	}{
		{"resident source", handler{File: in.file, NoPrefetch: true}},
		{"raw image", handler{Store: r.inputs.store, Image: in.name + ":raw", NoPrefetch: true}},
	}
	for _, procs := range slices.Compact([]int{runtime.NumCPU(), manyProcs()}) {
		for _, source := range sources {
			name := fmt.Sprintf("GOMAXPROCS=%d, %s", procs, source.name)
			loaded := source.handler
			loaded.Load = r.inputs.guest.file
			idle := g.add(subject{name: name + ", idle", place: free, file: in.file, client: touches, procs: procs, handler: &source.handler})
			busy := g.add(subject{name: name + ", busy", place: free, file: in.file, client: touches, procs: procs, handler: &loaded})
			g.rows = append(g.rows,
				row{subject: idle, what: "p50", figure: p50},
				row{subject: idle, what: "p99", figure: p99},
				row{subject: busy, what: "p50", figure: p50, against: idle},
				row{subject: busy, what: "p99", figure: p99, against: idle},
			)
		}
	}
	return g
}
