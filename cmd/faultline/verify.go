package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

// A verdict is what verify tells.
type verdict struct {
	Ref    string `json:"ref"`
	Digest string `json:"digest,omitempty"`
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"`
}

func (a *app) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify REF",
		Short: "Read all of an image and check every byte",
		Long: `Read all of an image: every blob against its SHA-256, every part of the index
and every frame against its BLAKE3, and decode every frame. Exit code 4 says that
something is wrong.`,
		Example: `  faultline verify app:v1
  faultline verify app:v1 --json`,
		Args:              arguments("REF"),
		ValidArgsFunction: a.completeRef,
		RunE: func(cmd *cobra.Command, args []string) error {
			v := verdict{Ref: args[0]}
			err := a.verify(cmd.Context(), &v)
			if a.json && cmd.Context().Err() == nil {
				if err != nil {
					v.Error = oneLine(err)
				}
				v.OK = err == nil
				if err := a.printJSON(v); err != nil {
					return err
				}
			}
			if a.json || err != nil {
				return err
			}
			return a.print("%s is in order: %s\n", v.Ref, v.Digest)
		},
	}
}

func (a *app) verify(ctx context.Context, v *verdict) error {
	opened, err := a.open(ctx, v.Ref)
	if err != nil {
		return err
	}
	defer opened.Close()
	v.Ref, v.Digest = opened.ref.String(), opened.manifest.Digest.String()
	report, done := a.progress("verify")
	defer done()
	if err := opened.Verify(ctx, report); err != nil {
		return fmt.Errorf("%s: %w", opened.ref, err)
	}
	return nil
}
