package main

// restore asks how long it takes until everything is resident, when nobody touches
// anything, against reading the raw file into fresh memory.
func (r *rig) restore() *group {
	g := &group{name: "restore", title: "restore everything, touch nothing"}
	nothing := []string{"-o", "none"}
	for _, in := range []input{r.inputs.guest, r.inputs.random} {
		eager := g.add(subject{name: in.name + ", eager pread", place: free, file: in.file, client: []string{"-o", "none", "-e"}})
		raw := g.add(subject{name: in.name + ", Faultline, raw image", place: free, file: in.file, client: nothing, handler: r.packed(in, "raw")})
		zstd := g.add(subject{name: in.name + ", Faultline, zstd image", place: free, file: in.file, client: nothing, handler: r.packed(in, "zstd")})
		g.rows = append(g.rows,
			row{subject: eager, what: "resident", figure: resident},
			row{subject: raw, what: "resident", figure: resident, against: eager, target: "≤ 1.00"},
			row{subject: zstd, what: "resident", figure: resident, against: eager},
		)
	}
	return g
}
