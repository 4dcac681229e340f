package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A subject is what is measured: one client, with whoever serves it.
type subject struct {
	name   string
	place  place
	file   string   // what the client must see
	client []string // further arguments of the client

	// Who serves it: the floor with so many pages a fault, or a handler of this
	// program, or, if neither is set, the kernel.
	floor   int
	handler *handler
	procs   int // GOMAXPROCS of the handler; 0: what the faultline command takes

	results []result // one a round
}

// A place says which CPUs client and serving thread are bound to, -1 for none.
type place struct {
	name            string
	client, handler int
}

// A result is what the client prints.
type result struct {
	P50, P90, P99, P999, Max time.Duration // of a touch
	First                    time.Duration // from connecting to the first page
	Touched                  time.Duration // from connecting to the last touch
	Resident                 time.Duration // until all is there; where nothing was touched
	Checked                  int           // pages that were compared
}

// patience is for one measurement. Being slow is no failure, standing still is.
const patience = 2 * time.Minute

// run measures everything once a round. Each round begins with another subject, so
// that whatever disturbs the machine, or follows from the order, hits all alike.
func (r *rig) run(ctx context.Context, groups []*group) error {
	var all []*subject
	for _, g := range groups {
		all = append(all, g.subjects...)
	}
	for round := range r.rounds {
		for i := range all {
			s := all[(i+round*len(all)/r.rounds)%len(all)]
			r.progress("round %d of %d, %d of %d: %s, %s", round+1, r.rounds, i+1, len(all), s.name, s.place.name)
			got, err := r.measure(ctx, s)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, s.place.name, err)
			}
			s.results = append(s.results, got)
		}
	}
	r.progress("")
	return nil
}

// progress rewrites the line below, if somebody may be looking.
func (r *rig) progress(format string, args ...any) {
	if _, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS); err == nil {
		fmt.Fprintf(os.Stderr, "\r\033[K"+format, args...)
	}
}

func (r *rig) measure(ctx context.Context, s *subject) (got result, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer func() {
		if err != nil && ctx.Err() == context.DeadlineExceeded {
			err = fmt.Errorf("not done after %v: %w", patience, err)
		}
	}()
	running, watch := together(ctx)
	args := append([]string{"-r", s.file, "-c", strconv.Itoa(s.place.client)}, s.client...)
	if cmd := r.serve(running, s); cmd != nil {
		args = append(args, "-s", r.socket())
		os.Remove(r.socket())
		h, err := start(cmd)
		if err != nil {
			return got, err
		}
		watch(h)
		defer func() { err = s.part(h, err) }()
	}
	client, err := start(exec.CommandContext(running, r.client, args...))
	if err != nil {
		return got, err
	}
	client.in.Write([]byte("go"))
	out, err := client.finish()
	if err != nil {
		return got, err
	}
	return got, json.Unmarshal(out, &got)
}

// part ends a handler whose client has exited. Faultline's ends by itself.
func (s *subject) part(h *process, err error) error {
	if err == nil && s.handler != nil && !s.handler.Naive {
		_, err := h.finish()
		return err
	}
	h.kill()
	if err != nil && h.errs.Len() > 0 {
		return fmt.Errorf("%w\n%s", err, h.errs.Bytes())
	}
	return err
}

func (r *rig) socket() string { return r.path("socket") }

// serve is the command that serves the subject, or nil.
func (r *rig) serve(ctx context.Context, s *subject) *exec.Cmd {
	if s.floor > 0 {
		return exec.CommandContext(ctx, r.floor, r.socket(), s.file, strconv.Itoa(s.floor), strconv.Itoa(s.place.handler))
	}
	if s.handler == nil {
		return nil
	}
	h := *s.handler
	h.Socket, h.CPU = r.socket(), s.place.handler
	if r.profile != "" && !h.Naive {
		h.Profile = fmt.Sprintf("%s/%s, %s.pprof", r.profile, s.name, s.place.name)
	}
	arg, err := json.Marshal(h)
	if err != nil {
		panic(err) // it has nothing but strings and numbers
	}
	cmd := exec.CommandContext(ctx, r.self, handlerCommand, string(arg))
	procs := s.procs
	if procs == 0 {
		procs = manyProcs()
	}
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", procs))
	return cmd
}

// manyProcs is the GOMAXPROCS with which a locked thread gets its turn though every
// CPU is busy.
func manyProcs() int { return max(4, 2*runtime.NumCPU()) }
