package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"faultline/handoff/firecracker"
	"faultline/handoff/handofftest"
	"faultline/image"
	"faultline/session"
	"faultline/store"
	"faultline/uffd"
)

// Exit codes. Scripts depend on them: a number never changes its meaning.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNoImage     = 3
	exitCorrupt     = 4
	exitInput       = 5
	exitForbidden   = 6
	exitKilled      = 7
	exitFull        = 8
	exitSocket      = 9
	exitInterrupted = 128 // plus the signal's number
)

var (
	errUsage  = errors.New("wrong usage")
	errInput  = errors.New("unusable input file")
	errLacks  = errors.New("this machine lacks something")
	errExists = errors.New("it exists already")
)

// A failure is a kind of error that has an exit code of its own.
type failure struct {
	code    int
	meaning string
	is      []error
	hint    string // what to do about it
}

// failures is looked through in order: an error may be of several kinds, as where a
// client had to be killed because its image was corrupt.
var failures = []failure{
	{exitUsage, "the command line is wrong", []error{errUsage, store.ErrBadRef}, ""},
	{exitKilled, "a client had to be killed", []error{session.ErrKilled}, ""},
	{exitCorrupt, "the image is corrupt or incomplete", []error{image.ErrCorrupt},
		"Nothing of what is damaged was given out. Pack the image again, or restore the store from a copy."},
	{exitInput, "an input file can't be used", []error{errInput, image.ErrBadInput},
		"A memory file holds whole pages of 4096 bytes, at least one."},
	{exitFull, "no space is left", []error{unix.ENOSPC, unix.EDQUOT},
		"Free some space, or choose another directory: --store for the store, $TMPDIR for the demo."},
	{exitForbidden, "not permitted, or not possible on this machine",
		[]error{errLacks, unix.EACCES, unix.EPERM, unix.EROFS, uffd.ErrUnsupported, handofftest.ErrNoHugePages}, ""},
	{exitSocket, "the socket's path is taken", []error{firecracker.ErrInUse, firecracker.ErrNotSocket},
		"Stop the server that listens there, or choose another path."},
	{exitNoImage, "there is no such image, or no store", []error{store.ErrNotFound},
		"'faultline ls' lists the images of a store, --store chooses the store."},
	{exitFailed, "anything else went wrong", []error{errExists}, "Remove it first, or use --force."},
}

// classify finds out of which kind an error is.
func classify(err error) failure {
	var signal *interruption
	if errors.As(err, &signal) {
		return failure{code: exitInterrupted + int(signal.signal)}
	}
	for _, f := range failures {
		for _, is := range f.is {
			if errors.Is(err, is) {
				return f
			}
		}
	}
	return failure{code: exitFailed}
}

// A hintedError knows what to do about it.
type hintedError struct {
	error
	hint string
}

func (h *hintedError) Unwrap() error { return h.error }

// hinted adds a line that says what to do.
func hinted(err error, hint string) error { return &hintedError{err, hint} }

// advice is one line that says what to do, or nothing.
func (f failure) advice(err error) string {
	var own *hintedError
	if errors.As(err, &own) {
		return own.hint
	}
	return f.hint
}

// A markedError is of a kind that its text does not tell.
type markedError struct {
	error
	kind error
}

func (m *markedError) Is(target error) bool { return target == m.kind }

func (m *markedError) Unwrap() error { return m.error }

// usageError marks an error as the user's.
func usageError(err error) error { return &markedError{err, errUsage} }

// lacking marks an error as the machine's.
func lacking(err error) error { return &markedError{err, errLacks} }

// usage says that the command line was wrong.
func usage(command *cobra.Command, err error) error {
	return hinted(usageError(err), fmt.Sprintf("'%s -h' shows how it is used.", command.CommandPath()))
}

// exitCodesTopic is a page of help.
func exitCodesTopic() *cobra.Command {
	var text strings.Builder
	text.WriteString("Exit codes, which never change their meaning:\n\n")
	line := func(code, meaning string) { fmt.Fprintf(&text, "  %4s  %s\n", code, meaning) }
	line("0", "done")
	for code := exitFailed; code <= exitSocket; code++ {
		for _, f := range failures {
			if f.code == code {
				line(fmt.Sprint(code), f.meaning)
			}
		}
	}
	line("130", "stopped by SIGINT; other signals are 128 and their number")
	text.WriteString(`
Of several, the command gives the first that fits in the order 2, 7, 4, 5, 8, 6, 9, 3, 1.
'serve' that was told to stop and left all its clients complete has done what it
should: 0. After a failure nothing half-written is left where it could be seen.`)
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: text.String()}
}
