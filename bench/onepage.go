package main

// onePage asks what a fault costs when each is answered with one page: the engine
// against the bare system calls.
func (r *rig) onePage() *group {
	in := r.inputs.small
	g := &group{name: "page", title: "one page a fault"}
	for _, at := range r.places() {
		floor := g.add(subject{name: floorName(1), place: at, file: in.file, floor: 1})
		naive := g.add(subject{name: "naive", place: at, file: in.file, handler: &handler{File: in.file, Naive: true}})
		ours := g.add(subject{name: "Faultline, resident source", place: at, file: in.file,
			handler: &handler{File: in.file, BlockSize: 4096, NoPrefetch: true}})
		targets := [2]string{}
		if at.name == "same core" {
			targets = [2]string{"≤ 1.10", "≤ 1.30"}
		}
		for _, s := range []*subject{floor, naive, ours} {
			median := row{subject: s, what: "p50", figure: p50}
			tail := row{subject: s, what: "p99", figure: p99}
			if s != floor {
				median.against, tail.against = floor, floor
			}
			if s == ours {
				median.target, tail.target = targets[0], targets[1]
			}
			g.rows = append(g.rows, median, tail)
		}
	}
	return g
}
