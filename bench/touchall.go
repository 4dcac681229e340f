package main

import "fmt"

// touchAll asks how long a client waits in all that touches everything at random.
func (r *rig) touchAll() *group {
	in := r.inputs.random
	random := []string{"-o", "random"}
	g := &group{name: "touch", title: "touch everything in random order"}
	mapped := g.add(subject{name: "mmap of the file, no handler", place: free, file: in.file, client: []string{"-o", "random", "-m"}})
	g.rows = append(g.rows, row{subject: mapped, what: "touched", figure: touched})
	targets := map[string]string{"same core": "≥ 2.5 × faster", "other core": "≥ 20 × faster"}
	for _, at := range r.places()[:len(r.cpus)] {
		naive := g.add(subject{name: "naive", place: at, file: in.file, client: random, handler: &handler{File: in.file, Naive: true}})
		g.rows = append(g.rows, row{subject: naive, what: "touched", figure: touched})
		for _, pages := range []int{1, 16, 64, 512} {
			s := g.add(subject{name: floorName(pages), place: at, file: in.file, client: random, floor: pages})
			g.rows = append(g.rows, row{subject: s, what: "touched", figure: touched, against: naive, faster: true})
		}
		ours := g.add(subject{name: "Faultline, raw image", place: at, file: in.file, client: random, handler: r.packed(in, "raw")})
		g.rows = append(g.rows, row{subject: ours, what: "touched", figure: touched, against: naive, faster: true, target: targets[at.name]})
	}
	return g
}

func floorName(pages int) string {
	if pages == 1 {
		return "floor, 1 page"
	}
	return fmt.Sprintf("floor, %d pages", pages)
}

// packed serves an input's image in all ways by default.
func (r *rig) packed(in input, codec string) *handler {
	return &handler{Store: r.inputs.store, Image: in.name + ":" + codec}
}
