package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ready is the line by which a process says that it can begin.
const ready = "ready"

// A process is a client or a handler. It ends with ctx at the latest.
type process struct {
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	errs  bytes.Buffer
	ended chan struct{}
	err   error // valid once ended is closed
}

// start starts a process and waits until it is ready.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{name: filepath.Base(cmd.Path), cmd: cmd, ended: make(chan struct{})}
	cmd.Stderr = &p.errs
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// Not StdoutPipe, which Wait closes: the last line may not have been read by then.
	out, w := io.Pipe()
	cmd.Stdout = w
	p.in, p.out = in, bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		w.Close()
		close(p.ended)
	}()
	line, err := p.out.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != ready {
		p.kill()
		return nil, p.failure("did not begin")
	}
	return p, nil
}

// finish reads the rest of the output and waits for the end.
func (p *process) finish() ([]byte, error) {
	out, _ := io.ReadAll(p.out)
	<-p.ended
	if p.err != nil {
		return nil, p.failure("failed")
	}
	return out, nil
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	io.Copy(io.Discard, p.out)
	<-p.ended
}

func (p *process) failure(what string) error {
	return fmt.Errorf("%s %s: %v\n%s", p.name, what, p.err, p.errs.Bytes())
}

// together cancels ctx's copy once any of the processes given has failed, so that
// a client is not waited for that nobody answers.
func together(ctx context.Context) (context.Context, func(*process)) {
	ctx, cancel := context.WithCancel(ctx)
	return ctx, func(p *process) {
		go func() {
			<-p.ended
			if p.err != nil {
				cancel()
			}
		}()
	}
}
