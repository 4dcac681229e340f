package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"faultline/image"
	"faultline/internal/snapshot"
	"faultline/store"
)

const (
	demoSeed     = 1
	workingSet   = 0.1 // of all pages
	workingRun   = 32  // pages that lie together in the working set
	demoMinimum  = 1 << 20
	demoSnapshot = "memory.bin"
)

// A comparison is what the demo found out.
type comparison struct {
	Size        int64       `json:"size"` // of the memory, bytes
	ZeroPages   int64       `json:"zeroPages"`
	ImageBytes  int64       `json:"imageBytes"`
	PackSeconds float64     `json:"packSeconds"`
	WorkingSet  int         `json:"workingSetPages"`
	Lazy        restoration `json:"lazy"`
	Eager       restoration `json:"eager"`
}

func (a *app) demoCommand() *cobra.Command {
	var size string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work: restore a memory snapshot lazily and eagerly, and compare",
		Long: `Make a memory snapshot like a guest's, pack it, and restore it twice into a client
process, over a real socket and a real userfaultfd: lazily, and after an eager copy.
Every page is verified and every figure measured. Needs root, some memory and some
space in $TMPDIR, and leaves nothing behind.`,
		Example: `  faultline demo
  faultline demo --size 256M --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			bytes, err := parseSize(size)
			if err == nil && (bytes < demoMinimum || bytes%image.PageSize != 0) {
				err = fmt.Errorf("%s is not a whole number of pages, or less than 1M", size)
			}
			if err != nil {
				return usage(cmd, fmt.Errorf("--size: %w", err))
			}
			return a.demo(cmd.Context(), bytes)
		},
	}
	cmd.Flags().StringVar(&size, "size", "1G", "size of the snapshot")
	return cmd
}

func (a *app) demo(ctx context.Context, size int64) (err error) {
	if err := checkMachine(size); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "faultline-demo-")
	if err != nil {
		return fmt.Errorf("make a temporary directory: %w", err)
	}
	defer func() {
		err = errors.Join(err, os.RemoveAll(dir))
		if cause := context.Cause(ctx); cause != nil { // the reason, whatever it led to
			err = cause
		}
	}()
	c, err := a.compare(ctx, dir, size)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(c)
	}
	return a.print("%s", c)
}

// compare does what the demo is about in a directory of its own.
func (a *app) compare(ctx context.Context, dir string, size int64) (*comparison, error) {
	snapshot := filepath.Join(dir, demoSnapshot)
	if err := a.makeSnapshot(ctx, snapshot, size); err != nil {
		return nil, err
	}
	l, err := store.OpenLayout(filepath.Join(dir, "store"))
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	packed, err := a.packDemo(ctx, l, snapshot)
	if err != nil {
		return nil, err
	}
	d := demo{dir: dir, snapshot: snapshot, layout: l, size: size, pages: workingPages(size)}
	c := &comparison{
		Size: size, ZeroPages: packed.ZeroPages, ImageBytes: packed.PackBytes + packed.IndexBytes,
		PackSeconds: time.Since(begin).Seconds(), WorkingSet: len(d.pages),
	}
	a.step("restore it lazily, and verify every page")
	if c.Lazy, err = d.restore(ctx, false); err != nil {
		return nil, fmt.Errorf("lazy restore: %w", err)
	}
	a.step("restore it with an eager copy, and verify every page")
	if c.Eager, err = d.restore(ctx, true); err != nil {
		return nil, fmt.Errorf("eager restore: %w", err)
	}
	return c, nil
}

// step tells what is going on, which takes some seconds each.
func (a *app) step(what string) {
	if isTerminal(a.stderr) {
		fmt.Fprintln(a.stderr, what+" ...")
	}
}

func (a *app) makeSnapshot(ctx context.Context, path string, size int64) error {
	a.step("make a memory snapshot of " + formatSize(size))
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(snapshot.Write(&contextWriter{ctx, f}, size, demoSeed), f.Close())
}

// A contextWriter ends with its context.
type contextWriter struct {
	ctx context.Context
	f   *os.File
}

func (w *contextWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.f.Write(p)
}

func (a *app) packDemo(ctx context.Context, l *store.Layout, snapshot string) (*description, error) {
	a.step("pack it into an image")
	f, err := openInput(snapshot)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	report, done := a.progress("pack")
	defer done()
	return packInto(ctx, l, f, store.Ref{Name: "demo", Tag: store.DefaultTag}, image.Options{Progress: report})
}

// String is the table.
func (c *comparison) String() string {
	text := fmt.Sprintf("A guest-like memory of %s, %s of it zero pages, was packed into an image of %s in %s.\n",
		formatSize(c.Size), percent(c.ZeroPages, c.Size/image.PageSize), formatSize(c.ImageBytes), seconds(c.PackSeconds))
	text += fmt.Sprintf("A client process got it back twice, and touched a working set of %s, in runs of %s.\n\n",
		formatSize(int64(c.WorkingSet)*image.PageSize), formatSize(workingRun*image.PageSize))
	row := func(what, lazy, eager string) { text += fmt.Sprintf("  %-34s %12s %12s\n", what, lazy, eager) }
	each := func(what string, value func(*restoration) string) { row(what, value(&c.Lazy), value(&c.Eager)) }
	row("", "lazy", "eager copy")
	each("first page there after", func(r *restoration) string { return seconds(r.FirstPage) })
	each("working set touched after", func(r *restoration) string { return seconds(r.WorkingSet) })
	each("  faults on the way", func(r *restoration) string { return fmt.Sprint(r.Faults) })
	each("  fault latency p50", func(r *restoration) string { return latency(r, r.FaultP50) })
	each("  fault latency p99", func(r *restoration) string { return latency(r, r.FaultP99) })
	each("  read from the image by then", func(r *restoration) string { return formatSize(r.BytesRead) })
	each("all memory there after", func(r *restoration) string { return seconds(r.Complete) })
	each("pages verified, all of them right", func(r *restoration) string { return fmt.Sprint(r.Verified) })
	return text + `
Both times start when the client hands its memory over. lazy: it runs at once, pages come
as it touches them, the rest in the background. eager copy: the whole image is decoded and
copied into its memory before it may run. The image was in the page cache both times.
`
}

func seconds(s float64) string { return formatDuration(time.Duration(s * float64(time.Second))) }

func latency(r *restoration, s float64) string {
	if r.Faults == 0 {
		return "no faults"
	}
	return seconds(s)
}
