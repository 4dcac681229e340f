package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultline/handoff/handofftest"
	"faultline/internal/snapshot"
)

// patience is how long anything in these tests may take.
const patience = 30 * time.Second

// A fixture is a packed memory file.
type fixture struct {
	store, memory string
	size          uint64
}

// packed packs a guest-like memory of size bytes as app:latest.
func packed(t *testing.T, size uint64, flags ...string) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{store: filepath.Join(dir, "store"), memory: filepath.Join(dir, "memory"), size: size}
	if err := snapshot.WriteFile(f.memory, int64(size), 1); err != nil {
		t.Fatal(err)
	}
	f.run(t, append([]string{"pack", f.memory, "app"}, flags...)...)
	return f
}

// run runs a command that must succeed and gives its output.
func (f *fixture) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("faultline", append(args, "--store", f.store)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("faultline %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// A servingProcess is a running "faultline serve --json".
type servingProcess struct {
	t      *testing.T
	socket string
	cmd    *exec.Cmd
	stderr strings.Builder
	done   chan struct{} // closed when it has exited
	code   int           // exit code, after done

	mu     sync.Mutex
	change *sync.Cond
	events []map[string]any
}

// serve starts a server. It is killed at the end of the test, but should have been
// stopped until then.
func (f *fixture) serve(t *testing.T, flags ...string) *servingProcess {
	t.Helper()
	s := &servingProcess{t: t, socket: filepath.Join(t.TempDir(), "sock"), done: make(chan struct{})}
	s.change = sync.NewCond(&s.mu)
	s.cmd = exec.Command("faultline", append([]string{"serve", "app", "--firecracker", s.socket, "--json", "--store", f.store}, flags...)...)
	s.cmd.Stderr = &s.stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.listen(bufio.NewScanner(out))
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		<-s.done
		if t.Failed() {
			t.Logf("the server's events: %v\nits messages: %s", s.events, s.stderr.String())
		}
	})
	s.await("listening", 1)
	return s
}

// listen collects events, then the exit code.
func (s *servingProcess) listen(lines *bufio.Scanner) {
	for lines.Scan() {
		var e map[string]any
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			s.t.Errorf("event %s: %v", lines.Text(), err)
		}
		s.mu.Lock()
		s.events = append(s.events, e)
		s.mu.Unlock()
		s.change.Broadcast()
	}
	err := s.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		s.code = exit.ExitCode()
	}
	close(s.done)
	s.change.Broadcast()
}

// await waits for the nth event of a kind.
func (s *servingProcess) await(kind string, nth int) map[string]any {
	s.t.Helper()
	timeout := time.AfterFunc(patience, s.change.Broadcast)
	defer timeout.Stop()
	begin := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		n := 0
		for _, e := range s.events {
			if e["event"] == kind {
				if n++; n == nth {
					return e
				}
			}
		}
		select {
		case <-s.done:
			s.t.Fatalf("the server exited with code %d, without event %d of kind %q: %s", s.code, nth, kind, s.stderr.String())
		default:
		}
		if time.Since(begin) > patience {
			s.t.Fatalf("event %d of kind %q did not come", nth, kind)
		}
		s.change.Wait()
	}
}

// signal sends a signal.
func (s *servingProcess) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// exits fails the test unless the server ends with that exit code.
func (s *servingProcess) exits(code int) {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(patience):
		s.t.Fatal("the server does not end")
	}
	if s.code != code {
		s.t.Fatalf("the server's exit code is %d, want %d: %s", s.code, code, s.stderr.String())
	}
	if _, err := os.Stat(s.socket); err == nil {
		s.t.Error("the socket was left behind")
	}
}

// stop ends the server in good order.
func (s *servingProcess) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	s.exits(0)
}

// client starts a client whose memory shows all of the image. It is killed at the end
// of the test.
func (f *fixture) client(t *testing.T, s *servingProcess, change func(*handofftest.Config)) *handofftest.Client {
	t.Helper()
	config := handofftest.Config{Socket: s.socket, Regions: []handofftest.Region{{Size: f.size}}, Reference: f.memory}
	if change != nil {
		change(&config)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	c, err := handofftest.Start(ctx, config)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		c.Wait()
	})
	return c
}

// checkAll compares pages, or all, with what they must be.
func checkAll(t *testing.T, c *handofftest.Client, pages ...uint64) {
	t.Helper()
	r, err := c.Check(pages...)
	if err == nil {
		err = r.Err()
	}
	if err == nil && len(pages) == 0 && r.Checked != c.Pages {
		err = fmt.Errorf("%d pages of %d were checked", r.Checked, c.Pages)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func touch(t *testing.T, c *handofftest.Client, spec handofftest.TouchSpec) *handofftest.TouchResult {
	t.Helper()
	r, err := c.Touch(spec)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func exit(t *testing.T, c *handofftest.Client) {
	t.Helper()
	if err := c.Exit(); err != nil {
		t.Fatal(err)
	}
}

// send connects to the server as no VMM would, with a message and descriptors.
func (s *servingProcess) send(message string, fds ...int) {
	s.t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: s.socket}); err != nil {
		s.t.Fatal(err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(fd, []byte(message), rights, nil, 0); err != nil {
		s.t.Fatal(err)
	}
}
