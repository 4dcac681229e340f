package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"faultline/store"
)

// A listing is one image in ls. Where the image can't be read, Error says why.
type listing struct {
	Ref     string    `json:"ref"`
	Digest  string    `json:"digest"`
	Size    int64     `json:"size,omitempty"`   // of the memory, bytes
	Stored  int64     `json:"stored,omitempty"` // of all that belongs to it, bytes
	Created time.Time `json:"created,omitzero"`
	Error   string    `json:"error,omitempty"`
}

func (a *app) lsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the images of the store",
		Example: `  faultline ls
  faultline ls --json | jq -r '.[].ref'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.list(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(list)
			}
			return a.writeList(list)
		},
	}
}

// list reads the names and what they stand for. The usual store may not exist yet:
// it has no images then. Where the user names one, it must.
func (a *app) list(ctx context.Context) ([]listing, error) {
	list := []listing{}
	l, err := a.layout()
	if err != nil {
		return nil, err
	}
	tagged, err := l.List(ctx)
	if errors.Is(err, store.ErrNotFound) && a.storeDir == "" {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	for _, t := range tagged {
		entry := listing{Ref: t.Ref.String(), Digest: t.Manifest.Digest.String()}
		if err := entry.look(ctx, l, t); err != nil {
			entry.Error = oneLine(err)
		}
		list = append(list, entry)
	}
	return list, ctx.Err()
}

func (e *listing) look(ctx context.Context, l *store.Layout, t store.Tagged) error {
	opened, err := openManifest(ctx, l, t.Ref, t.Manifest)
	if err != nil {
		return err
	}
	defer opened.Close()
	m := opened.Manifest()
	e.Stored = t.Manifest.Size + m.Config.Size
	for _, d := range m.Layers {
		e.Stored += d.Size
	}
	e.Size, e.Created = opened.Size(), opened.Config().Created
	return nil
}

func (a *app) writeList(list []listing) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "IMAGE\tDIGEST\tSIZE\tSTORED\tCREATED")
	for _, e := range list {
		if e.Error != "" {
			fmt.Fprintf(w, "%s\t%.19s\tunreadable: %s\n", e.Ref, e.Digest, e.Error)
			continue
		}
		created := ""
		if !e.Created.IsZero() {
			created = e.Created.Format(time.DateTime)
		}
		fmt.Fprintf(w, "%s\t%.19s\t%s\t%s\t%s\n", e.Ref, e.Digest, formatSize(e.Size), formatSize(e.Stored), created)
	}
	return w.Flush()
}
