// Command bench measures Faultline beside the floor, a C program that only polls,
// reads and copies, and beside the handler that everyone writes by hand. All of
// them serve the same client, run in the same rounds, and end up in one table of
// medians and ratios. See README.md.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

func main() {
	runHandler()
	var o options
	flag.IntVar(&o.rounds, "rounds", 7, "how often everything is measured")
	flag.Int64Var(&o.size, "size", 256, "size of the memory in `MiB`")
	only := flag.String("only", "", "measure only the groups that match this `regexp`: page, touch, restore, busy")
	asJSON := flag.Bool("json", false, "print the figures as JSON")
	flag.StringVar(&o.profile, "profile", "", "have Faultline's servers write CPU profiles into this `directory`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := bench(ctx, o, *only, *asJSON); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// options are the command's.
type options struct {
	rounds  int
	size    int64 // MiB
	profile string
}

func bench(ctx context.Context, o options, only string, asJSON bool) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	rig, err := newRig(ctx, o)
	if err != nil {
		return err
	}
	defer rig.close()
	groups := rig.groups(match)
	if len(groups) == 0 {
		return fmt.Errorf("no group matches %q", only)
	}
	before := rig.machine()
	if err := rig.run(ctx, groups); err != nil {
		return err
	}
	report := newReport(before, groups)
	if asJSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(report)
	}
	report.print(os.Stdout)
	return nil
}

// A rig has what all measurements need: programs, files, and where to run them.
type rig struct {
	options
	dir    string
	self   string // this program, for the handlers written in Go
	client string // the compiled programs
	floor  string
	cpus   []int // the first two that we may run on
	inputs inputs
}

// newRig compiles the floor and makes the files, in a directory that close removes.
func newRig(ctx context.Context, o options) (_ *rig, err error) {
	if unix.Geteuid() != 0 {
		return nil, fmt.Errorf("must run as root: the client opens a userfaultfd that hears of faults in the kernel")
	}
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return nil, err
		}
	}
	r := &rig{options: o}
	if r.dir, err = os.MkdirTemp("", "faultline-bench-"); err != nil {
		return nil, err
	}
	if err := r.prepare(ctx); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rig) prepare(ctx context.Context) (err error) {
	if r.self, err = os.Executable(); err != nil {
		return err
	}
	if r.cpus, err = allowedCPUs(); err != nil {
		return err
	}
	if err := r.compile(ctx); err != nil {
		return err
	}
	r.inputs, err = makeInputs(ctx, r.dir, r.size<<20)
	return err
}

func (r *rig) close() { os.RemoveAll(r.dir) }

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func allowedCPUs() (cpus []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("ask for the CPUs: %w", err)
	}
	for cpu := range 8 * len(set) * 8 {
		if set.IsSet(cpu) && len(cpus) < 2 {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}
