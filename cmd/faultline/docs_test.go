package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"faultline/internal/snapshot"
)

// notRun are the beginnings of the commands in the documentation that can't run in a
// test: they need the network, a VMM, or are a test themselves.
var notRun = []string{
	"git clone ", "cd faultline", "apt-get install ", ".ci/run", "go install ", "go test ", "go run ",
	"faultline demo", // testdata/script/demo.txtar runs it
	"firecracker ", "curl ",
}

// A step is a command in the documentation and what it shows the command to print.
type step struct {
	line    int
	command string
	want    []string
}

// TestDocumentedCommands runs what the documentation's console fences show, in a
// directory with a memory.bin and a vm.state, one shell for each document. In the
// output that is shown, … stands for any text, and alone on a line for any lines. A
// command must fail if "faultline: …" is shown for it, and succeed otherwise.
func TestDocumentedCommands(t *testing.T) {
	documents, err := filepath.Glob("../../doc/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(documents, "../../README.md") {
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		steps := consoleSteps(string(text))
		if len(steps) == 0 {
			continue
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			sh := startShell(t)
			for _, s := range steps {
				sh.run(t, s)
			}
		})
	}
}

// consoleSteps finds the commands in fences that are marked as console. They begin with
// a prompt, and go on where a line ends in a backslash.
func consoleSteps(document string) (steps []step) {
	inside, continued := false, false
	for i, line := range strings.Split(document, "\n") {
		if strings.HasPrefix(line, "```") {
			inside, continued = strings.TrimSpace(line) == "```console", false
			continue
		}
		command, isCommand := strings.CutPrefix(line, "$ ")
		if !isCommand {
			command, isCommand = strings.CutPrefix(line, "# ")
		}
		switch {
		case !inside:
		case continued:
			last := &steps[len(steps)-1]
			last.command += "\n" + line
			continued = strings.HasSuffix(line, `\`)
		case isCommand:
			steps = append(steps, step{line: i + 1, command: command})
			continued = strings.HasSuffix(line, `\`)
		case len(steps) > 0:
			last := &steps[len(steps)-1]
			last.want = append(last.want, line)
		}
	}
	return steps
}

func (s step) skipped() bool {
	for _, beginning := range notRun {
		if strings.HasPrefix(s.command, beginning) {
			return true
		}
	}
	return false
}

func (s step) background() bool { return strings.HasSuffix(s.command, "&") }

func (s step) fails() bool {
	return len(s.want) > 0 && strings.HasPrefix(s.want[0], "faultline: ")
}

// matches says whether output is what the document shows.
func (s step) matches(output []string) bool {
	var pattern strings.Builder
	for _, line := range s.want {
		line = strings.TrimRight(line, " ")
		if line == "…" {
			pattern.WriteString(`(.*\n)*`)
			continue
		}
		pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + `\n`)
	}
	text := strings.Join(append(output, ""), "\n")
	return len(s.want) == 0 || regexp.MustCompile(`\A`+pattern.String()+`\z`).MatchString(text)
}

// A shell runs the commands of one document.
type shell struct {
	in    io.Writer
	lines chan string
}

func startShell(t *testing.T) *shell {
	t.Helper()
	dir := t.TempDir()
	if err := snapshot.WriteFile(filepath.Join(dir, "memory.bin"), 16<<20, 1); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vm.state"), []byte("device state"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+filepath.Join(dir, ".data"), "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sh := &shell{in: in, lines: make(chan string, 1000)}
	go func() {
		defer close(sh.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			sh.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // what it left in the background
		in.Close()
		cmd.Wait()
	})
	return sh
}

const marker = "=== exit code of that command: "

// run runs a step, with both outputs in one.
func (sh *shell) run(t *testing.T, s step) {
	t.Helper()
	if s.skipped() {
		return
	}
	if _, err := fmt.Fprintf(sh.in, "{ %s\n} </dev/null\nprintf '%s%%d\\n' $?\n", s.command, marker); err != nil {
		t.Fatal(err)
	}
	var output []string
	code := ""
	timeout := time.After(patience)
	for code == "" || s.background() && !s.matches(output) {
		select {
		case line, ok := <-sh.lines:
			if !ok {
				t.Fatalf("line %d: %s: the shell ended: %s", s.line, s.command, strings.Join(output, "\n"))
			}
			if rest, ok := strings.CutPrefix(line, marker); ok {
				code = rest
			} else {
				output = append(output, line)
			}
		case <-timeout:
			t.Fatalf("line %d: %s: does not end: %s", s.line, s.command, strings.Join(output, "\n"))
		}
	}
	if (code != "0") != s.fails() {
		t.Errorf("line %d: %s: exit code %s: %s", s.line, s.command, code, strings.Join(output, "\n"))
	}
	if !s.matches(output) {
		t.Errorf("line %d: %s: it prints\n%s\nbut documented is\n%s", s.line, s.command, strings.Join(output, "\n"), strings.Join(s.want, "\n"))
	}
}

func TestConsoleSteps(t *testing.T) {
	steps := consoleSteps("text\n$ no\n```console\n$ echo a \\\n  b\na …\n…\n# false\nfaultline: no\n```\n$ no\n```sh\n$ no\n```\n")
	if len(steps) != 2 || steps[0].command != "echo a \\\n  b" || steps[0].line != 4 || len(steps[0].want) != 2 || !steps[1].fails() {
		t.Fatalf("%+v", steps)
	}
	for output, want := range map[string]bool{"a b": true, "a b\nmore\nlines": true, "b": false, "x\na b": false} {
		if steps[0].matches(strings.Split(output, "\n")) != want {
			t.Errorf("%q: matches is not %v", output, want)
		}
	}
}
