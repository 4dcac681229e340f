package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// errNoCompiler means that there is nothing to measure against.
var errNoCompiler = errors.New("no C compiler: the floor is a C program; install one as cc, or name one in $CC")

//go:embed floor
var sources embed.FS

// compile builds the client and the floor's handler.
func (r *rig) compile(ctx context.Context) error {
	cc, err := compiler()
	if err != nil {
		return err
	}
	if err := os.CopyFS(r.path("src"), sources); err != nil {
		return err
	}
	r.client, r.floor = r.path("client"), r.path("floor")
	for program, source := range map[string]string{r.client: "client.c", r.floor: "handler.c"} {
		cmd := exec.CommandContext(ctx, cc, "-O2", "-o", program, source)
		cmd.Dir = r.path("src/floor")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("compile %s: %w\n%s", source, err, out)
		}
	}
	return nil
}

func compiler() (string, error) {
	for _, name := range []string{os.Getenv("CC"), "cc", "gcc", "clang"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path, nil
		}
	}
	return "", errNoCompiler
}
