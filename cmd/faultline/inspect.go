package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"faultline/image"
)

// A description is what inspect and pack tell about an image. Sizes are in bytes.
type description struct {
	Ref         string                     `json:"ref"`
	Digest      string                     `json:"digest"`
	Size        int64                      `json:"size"`
	PageSize    int                        `json:"pageSize"`
	Created     time.Time                  `json:"created,omitzero"`
	CreatedBy   string                     `json:"createdBy,omitempty"`
	Segments    []image.Segment            `json:"segments"`
	Pages       int64                      `json:"pages"`
	ZeroPages   int64                      `json:"zeroPages"`
	Packs       int                        `json:"packs"`
	PackBytes   int64                      `json:"packBytes"`
	IndexBytes  int64                      `json:"indexBytes"`
	FrameSize   int64                      `json:"frameSize"`
	Frames      map[image.Codec]frameCount `json:"frames"`
	Attachments []attachmentDescription    `json:"attachments"`
}

type frameCount struct {
	Count int64 `json:"count"`
	Pages int64 `json:"pages"`
	Bytes int64 `json:"bytes"` // stored
}

type attachmentDescription struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Digest string `json:"digest"`
}

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect REF",
		Short: "Show what an image is made of",
		Example: `  faultline inspect app:v1
  faultline inspect app:v1 --json`,
		Args:              arguments("REF"),
		ValidArgsFunction: a.completeRef,
		RunE: func(cmd *cobra.Command, args []string) error {
			opened, err := a.open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer opened.Close()
			d, err := describe(cmd.Context(), opened)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(d)
			}
			return d.write(a.stdout)
		},
	}
}

// describe reads the whole index of an image.
func describe(ctx context.Context, opened *openImage) (*description, error) {
	s, err := opened.Stats(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", opened.ref, err)
	}
	c := opened.Config()
	d := &description{
		Ref: opened.ref.String(), Digest: opened.manifest.Digest.String(),
		Size: c.Size, PageSize: c.PageSize, Created: c.Created, CreatedBy: c.CreatedBy, Segments: c.Segments,
		Pages: s.Pages, ZeroPages: s.ZeroPages,
		Packs: s.Packs, PackBytes: s.PackBytes, IndexBytes: s.IndexBytes,
		FrameSize: opened.FrameSize(), Frames: map[image.Codec]frameCount{}, Attachments: []attachmentDescription{},
	}
	for codec, n := range s.Frames {
		d.Frames[codec] = frameCount(n)
	}
	for _, at := range opened.Attachments() {
		d.Attachments = append(d.Attachments, attachmentDescription{at.Name, at.Descriptor.Size, at.Descriptor.Digest.String()})
	}
	return d, nil
}

// summary is the image in a few words.
func (d *description) summary() string {
	return fmt.Sprintf("%s in %s (%s of it zero pages)", formatSize(d.Size), formatSize(d.PackBytes), percent(d.ZeroPages, d.Pages))
}

func (d *description) write(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("image", "%s", d.Ref)
	row("digest", "%s", d.Digest)
	row("size", "%s, %d pages of %d bytes", formatSize(d.Size), d.Pages, d.PageSize)
	row("zero pages", "%d (%s)", d.ZeroPages, percent(d.ZeroPages, d.Pages))
	row("stored", "%s in %s, index %s", formatSize(d.PackBytes), plural(d.Packs, "pack"), formatSize(d.IndexBytes))
	for _, codec := range slices.Sorted(maps.Keys(d.Frames)) {
		f := d.Frames[codec]
		row(string(codec)+" frames", "%d, %s of memory in %s", f.Count, formatSize(f.Pages*int64(d.PageSize)), formatSize(f.Bytes))
	}
	if !d.Created.IsZero() {
		row("created", "%s %s", d.Created.Format(time.RFC3339), d.CreatedBy)
	}
	for _, s := range d.Segments {
		row("segment", "%s: %s at address %#x, from byte %d of the image", s.Name, formatSize(s.Length), s.Address, s.Offset)
	}
	for _, at := range d.Attachments {
		row("attachment", "%s: %s, %s", at.Name, formatSize(at.Size), at.Digest)
	}
	return w.Flush()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
