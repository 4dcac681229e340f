package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"faultline/image"
)

// exported is what export tells in JSON.
type exported struct {
	Ref    string `json:"ref"`
	Digest string `json:"digest"`
	File   string `json:"file"`
	Size   int64  `json:"size"`
}

func (a *app) exportCommand() *cobra.Command {
	var with []string
	var force bool
	cmd := &cobra.Command{
		Use:   "export REF FILE",
		Short: "Write an image back to a memory file, bit for bit",
		Long: `Write an image back to a memory file, bit for bit, with holes where it has zero
pages. Files appear when they are complete, and not before. Everything is verified.`,
		Example:           `  faultline export app:v1 memory.bin --with vmstate=vm.state`,
		Args:              arguments("REF", "FILE"),
		ValidArgsFunction: a.completeRefThenFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			opened, err := a.open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer opened.Close()
			if err := a.export(cmd.Context(), opened, args[1], with, force); err != nil {
				return fmt.Errorf("%s: %w", opened.ref, incomplete(err))
			}
			if a.json {
				return a.printJSON(exported{opened.ref.String(), opened.manifest.Digest.String(), args[1], opened.Size()})
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&with, "with", nil, "write an attachment too: `NAME=FILE` (repeatable)")
	cmd.Flags().BoolVar(&force, "force", false, "replace files that exist")
	return cmd
}

func (a *app) export(ctx context.Context, opened *openImage, file string, with []string, force bool) error {
	report, done := a.progress("export")
	defer done()
	for _, s := range with {
		name, file, err := splitPair(s)
		if err != nil {
			return usageError(fmt.Errorf("--with %s: %w", s, err))
		}
		err = writeFile(file, force, func(f *os.File) error { return exportAttachment(ctx, opened, name, f) })
		if err != nil {
			return err
		}
	}
	return writeFile(file, force, func(f *os.File) error { return image.Export(ctx, opened.Reader, f, report) })
}

func exportAttachment(ctx context.Context, opened *openImage, name string, to io.Writer) error {
	r, err := opened.OpenAttachment(ctx, name)
	if errors.Is(err, image.ErrBadInput) {
		return usageError(err)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(to, r)
	return errors.Join(err, r.Close())
}

// writeFile has a file written beside its place and moved there when it is complete.
// What exists and is no regular file, such as a device, is written directly.
func writeFile(path string, force bool, write func(*os.File) error) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case err == nil && !info.Mode().IsRegular():
		return writeDevice(path, write)
	case err == nil && !force:
		return fmt.Errorf("%s: %w", path, errExists)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func writeDevice(path string, write func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
