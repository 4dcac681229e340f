package main

import (
	"context"
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"faultline/image"
	"faultline/store"
)

// An openImage is an image of the store, open for reading.
type openImage struct {
	*image.Reader
	ref      store.Ref
	manifest ocispec.Descriptor
}

// open opens the image that an argument names.
func (a *app) open(ctx context.Context, arg string) (*openImage, error) {
	ref, err := store.Parse(arg)
	if err != nil {
		return nil, refError(err)
	}
	l, err := a.layout()
	if err != nil {
		return nil, err
	}
	manifest, err := l.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	return openManifest(ctx, l, ref, manifest)
}

func openManifest(ctx context.Context, blobs image.Blobs, ref store.Ref, manifest ocispec.Descriptor) (*openImage, error) {
	r, err := image.Open(ctx, blobs, manifest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, incomplete(err))
	}
	return &openImage{r, ref, manifest}, nil
}

// incomplete says that an image which lacks a blob is corrupt: it is there.
func incomplete(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", image.ErrCorrupt, err)
	}
	return err
}

// refError explains references.
func refError(err error) error {
	return hinted(usageError(err), "A reference is NAME, NAME:TAG or NAME@sha256:DIGEST.")
}

// completeRef offers the images of the store where one is expected.
func (a *app) completeRef(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	l, err := a.layout()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	tagged, err := l.List(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var refs []string
	for _, t := range tagged {
		refs = append(refs, t.Ref.String())
	}
	return refs, cobra.ShellCompDirectiveNoFileComp
}

// completeRefThenFile is completeRef where a file follows.
func (a *app) completeRefThenFile(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeRef(cmd, args, typed)
}
