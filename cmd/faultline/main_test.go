package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"faultline/handoff/handofftest"
	"faultline/internal/snapshot"
	"faultline/internal/testkit"
)

// noRaceSleep keeps the race detector from waiting a second at the end of every command.
const noRaceSleep = "atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	handofftest.Main()
	os.Setenv("GORACE", noRaceSleep)
	testscript.Main(m, map[string]func(){"faultline": main})
}

// TestScripts runs the scenarios in testdata/script.
func TestScripts(t *testing.T) { runScripts(t, "testdata/script") }

// TestMountScripts runs those that need a file system of their own.
func TestMountScripts(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("faultline", dir, "tmpfs", 0, "size=1m"); err != nil {
		testkit.Skip(t, fmt.Sprintf("mount a tmpfs: %v", err), os.Getuid() == 0)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	runScripts(t, "testdata/mounts")
}

func runScripts(t *testing.T, dir string) {
	t.Helper()
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_DATA_HOME", filepath.Join(e.WorkDir, "data"))
			e.Setenv("TMPDIR", e.WorkDir)
			e.Setenv("GORACE", noRaceSleep)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"snapshot": scriptSnapshot, "exits": scriptExits, "json": scriptJSON, "damage": scriptDamage,
			"tmpfs": scriptTmpfs, "readonly": scriptReadonly, "empty": scriptEmpty,
		},
		RequireExplicitExec: true,
	})
}

// snapshot FILE SIZE [SEED] makes a memory file.
func scriptSnapshot(ts *testscript.TestScript, _ bool, args []string) {
	seed := 1
	if len(args) == 3 {
		var err error
		seed, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	size, err := parseSize(args[1])
	ts.Check(err)
	ts.Check(snapshot.WriteFile(ts.MkAbs(args[0]), size, uint64(seed)))
}

// exits CODE COMMAND... runs a command that must end with that exit code.
func scriptExits(ts *testscript.TestScript, _ bool, args []string) {
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// json FILE PATH VALUE looks into a file, or stdout, of one JSON value. PATH is names and
// numbers with dots between them. Without VALUE the place must hold anything but zero.
func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	got, err := lookup(ts.ReadFile(args[0]), args[1])
	ts.Check(err)
	equal := false
	if len(args) == 2 {
		equal = got != "" && got != "0" && got != "false" && got != "<nil>"
	} else {
		equal = got == args[2]
	}
	if equal == neg {
		ts.Fatalf("%s is %s", args[1], got)
	}
}

// empty DIR... fails if a directory has anything in it.
func scriptEmpty(ts *testscript.TestScript, neg bool, args []string) {
	for _, dir := range args {
		entries, err := os.ReadDir(ts.MkAbs(dir))
		ts.Check(err)
		if (len(entries) == 0) == neg {
			ts.Fatalf("%s has %v", dir, entries)
		}
	}
}

// tmpfs DIR SIZE mounts a file system of that size.
func scriptTmpfs(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(unix.Mount("faultline", dir, "tmpfs", 0, "size="+args[1]))
	ts.Defer(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

// readonly DIR makes a file system from tmpfs read-only.
func scriptReadonly(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(unix.Mount("", ts.MkAbs(args[0]), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
}

// damage PART HOW [OFFSET] damages a part of the store's only image.
func scriptDamage(ts *testscript.TestScript, _ bool, args []string) {
	offset := int64(0)
	if len(args) == 3 {
		var err error
		offset, err = strconv.ParseInt(args[2], 10, 64)
		ts.Check(err)
	}
	dir := filepath.Join(ts.Getenv("XDG_DATA_HOME"), "faultline")
	ts.Check(damage(dir, args[0], args[1], offset))
}

// hasFields fails if text lacks any of the fields.
func hasFields(t *testing.T, text string, fields ...string) {
	t.Helper()
	for _, f := range fields {
		if !strings.Contains(text, f) {
			t.Errorf("%q is not in %s", f, text)
		}
	}
}
