package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"faultline/image"
	"faultline/store"
)

// packFlags are pack's own.
type packFlags struct {
	codec    string
	level    int
	with     []string
	segments []string
}

func (a *app) packCommand() *cobra.Command {
	var f packFlags
	cmd := &cobra.Command{
		Use:   "pack FILE REF",
		Short: "Make an image of a memory file",
		Long: `Make an image of a memory file, such as Firecracker's, and name it. FILE may be -
for standard input. Holes and zero pages take no space. Only when all of it is in the
store does REF mean the new image.`,
		Example: `  faultline pack memory.bin app:v1 --with vmstate=vm.state
  zcat memory.gz | faultline pack - app:v2 --codec raw
  faultline pack memory.bin app:v3 --segment low=0,3G,0 --segment high=4G,1G,3G`,
		Args: arguments("FILE", "REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := store.Parse(args[1])
			if err == nil && ref.Digest != "" {
				err = errors.New("an image is packed under a tag; its digest is known afterwards")
			}
			if err != nil {
				return refError(err)
			}
			options, err := f.options()
			if err != nil {
				return usage(cmd, err)
			}
			return a.pack(cmd.Context(), args[0], ref, options, f.with)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.codec, "codec", string(image.Zstd), "how pages are stored: zstd, or raw for the fastest reading")
	flags.IntVar(&f.level, "level", 3, "how hard zstd tries, from 1 to 22")
	flags.StringArrayVar(&f.with, "with", nil, "attach a `NAME=FILE`, such as the device state (repeatable)")
	flags.StringArrayVar(&f.segments, "segment", nil, "name a `RANGE`: NAME=ADDRESS,LENGTH,OFFSET (repeatable)")
	return cmd
}

// options are the image's, but for what needs files.
func (f *packFlags) options() (o image.Options, err error) {
	o = image.Options{Codec: image.Codec(f.codec), Level: f.level, CreatedBy: "faultline " + version()}
	if o.Codec != image.Zstd && o.Codec != image.Raw {
		return o, fmt.Errorf("--codec %s: it must be zstd or raw", f.codec)
	}
	if o.Level < 1 || o.Level > 22 {
		return o, fmt.Errorf("--level %d: it must be from 1 to 22", f.level)
	}
	for _, s := range f.segments {
		segment, err := parseSegment(s)
		if err != nil {
			return o, fmt.Errorf("--segment %s: %w", s, err)
		}
		o.Segments = append(o.Segments, segment)
	}
	o.Created, err = created()
	return o, err
}

// created is now, or what reproducible builds ask for.
func created() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now().UTC().Truncate(time.Second), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("$SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

func parseSegment(s string) (segment image.Segment, err error) {
	name, place, err := splitPair(s)
	if err != nil {
		return segment, err
	}
	fields := strings.Split(place, ",")
	if len(fields) != 3 {
		return segment, errors.New("it must be NAME=ADDRESS,LENGTH,OFFSET")
	}
	segment.Name = name
	if segment.Address, err = strconv.ParseUint(fields[0], 0, 64); err != nil {
		var size int64
		if size, err = parseSize(fields[0]); err != nil {
			return segment, err
		}
		segment.Address = uint64(size)
	}
	if segment.Length, err = parseSize(fields[1]); err != nil {
		return segment, err
	}
	segment.Offset, err = parseSize(fields[2])
	return segment, err
}

// pack makes the image and tells what came of it.
func (a *app) pack(ctx context.Context, file string, ref store.Ref, o image.Options, with []string) error {
	src, err := a.input(ctx, file)
	if err != nil {
		return err
	}
	defer src.Close()
	attached, err := openAttachments(with)
	if err != nil {
		return err
	}
	defer attached.close()
	o.Attach = attached
	l, err := a.layout()
	if err != nil {
		return err
	}
	report, done := a.progress("pack")
	o.Progress = report
	d, err := packInto(ctx, l, src, ref, o)
	done()
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if a.json {
		return a.printJSON(d)
	}
	return a.print("%s@%s\n%s\n", d.Ref, d.Digest, d.summary())
}

// packInto packs, and names the image: both, or it leaves nothing.
func packInto(ctx context.Context, l *store.Layout, src io.Reader, ref store.Ref, o image.Options) (*description, error) {
	manifest, err := l.PackAs(ctx, ref, src, -1, o)
	if err != nil {
		return nil, err
	}
	opened, err := openManifest(ctx, l, ref, manifest)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return describe(ctx, opened)
}

// input opens the memory file.
func (a *app) input(ctx context.Context, file string) (io.ReadCloser, error) {
	if file != "-" {
		f, err := openInput(file)
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
			f.Close()
			return nil, fmt.Errorf("%w: %s is empty", errInput, file)
		}
		return f, nil
	}
	if isTerminal(a.stdin) {
		return nil, hinted(fmt.Errorf("standard input is a terminal: %w", errInput), "Pipe or redirect a memory file into it.")
	}
	if info, err := a.stdin.Stat(); err == nil && info.Mode().IsRegular() {
		return io.NopCloser(a.stdin), nil
	}
	return interruptible(ctx, a.stdin), nil
}

// interruptible reads r until ctx ends, even if r has nothing to give: a read of a pipe
// can't be ended, so that goroutine is left behind.
func interruptible(ctx context.Context, r io.Reader) io.ReadCloser {
	out, in := io.Pipe()
	go func() {
		_, err := io.CopyBuffer(in, r, make([]byte, 1<<20))
		in.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { in.CloseWithError(ctx.Err()) })
	return out
}

// openInput opens a file that is to be read as a whole.
func openInput(file string) (*os.File, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, hinted(fmt.Errorf("%w: %w", errInput, err), "")
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, hinted(fmt.Errorf("%w: %s is a directory", errInput, file), "")
	}
	return f, nil
}

// attachments are files by the names under which they are attached.
type attachments map[string]io.Reader

func openAttachments(with []string) (attachments, error) {
	a := attachments{}
	for _, s := range with {
		if err := a.open(s); err != nil {
			a.close()
			return nil, err
		}
	}
	return a, nil
}

func (a attachments) open(s string) error {
	name, file, err := splitPair(s)
	if err != nil {
		return usageError(fmt.Errorf("--with %s: %w", s, err))
	}
	if a[name] != nil {
		return usageError(fmt.Errorf("--with %s: there is another %s", s, name))
	}
	f, err := openInput(file)
	if err != nil {
		return err
	}
	a[name] = f
	return nil
}

func (a attachments) close() {
	for _, r := range a {
		r.(io.Closer).Close()
	}
}
