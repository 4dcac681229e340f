package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"faultline/store"
)

// An app is what the commands share.
type app struct {
	stdin          *os.File
	stdout, stderr io.Writer
	signals        *signals

	storeDir string
	json     bool
	parsed   bool // the command line was in order
}

// run runs one command line and gives the exit code.
func run(args []string, stdin *os.File, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, signals: catchSignals()}
	root := a.rootCommand()
	root.SetArgs(args)
	command, err := root.ExecuteContextC(a.signals.first)
	if err == nil {
		return exitDone
	}
	if !a.parsed {
		err = usage(command, err)
	}
	if cause := context.Cause(a.signals.first); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	f := classify(err)
	fmt.Fprintf(stderr, "faultline: %s\n", oneLine(err))
	if hint := f.advice(err); hint != "" {
		fmt.Fprintf(stderr, "%s\n", hint)
	}
	return f.code
}

// oneLine is an error's text, of which joined parts have lines of their own.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "faultline",
		Short: "Pack memory snapshots, and serve their pages as they are touched",
		Long: `Faultline serves memory: it answers the page faults of virtual machines and
processes, and fills their pages from snapshot images.`,
		Example: `  faultline demo                                 see it work (as root)
  faultline pack memory.bin app:v1               make an image of a memory file
  faultline serve app:v1 --firecracker vm.sock   restore it into a Firecracker VM`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.parsed = true
		},
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.PersistentFlags().StringVar(&a.storeDir, "store", "", "directory of the store (default $XDG_DATA_HOME/faultline)")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "write the result as JSON")
	root.AddCommand(
		a.packCommand(), a.serveCommand(), a.lsCommand(), a.inspectCommand(), a.verifyCommand(), a.exportCommand(),
		a.demoCommand(), a.versionCommand(), exitCodesTopic(),
	)
	return root
}

// arguments says which arguments a command needs.
func arguments(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return fmt.Errorf("it takes %s, and was given %s", strings.Join(names, " and "), plural(len(args), "argument"))
	}
}

// layout is the store that the command line names.
func (a *app) layout() (*store.Layout, error) {
	dir := a.storeDir
	if dir == "" {
		var err error
		if dir, err = store.DefaultDir(); err != nil {
			return nil, err
		}
	}
	return store.OpenLayout(dir)
}

// printJSON writes one value on one line.
func (a *app) printJSON(v any) error {
	if err := json.NewEncoder(a.stdout).Encode(v); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// print writes to standard output.
func (a *app) print(format string, args ...any) error {
	if _, err := fmt.Fprintf(a.stdout, format, args...); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// note writes to standard error.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.stderr, "faultline: "+format+"\n", args...)
}
