package handofftest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"faultline/handoff"
)

// A Client is a running client process, as the program that started it sees it.
// Its methods may be called from several goroutines.
type Client struct {
	// PID is the process's number.
	PID int
	// Regions are those that the client announced.
	Regions []handoff.Region
	// PageSize is the unit in which pages are numbered, in bytes.
	PageSize uint64
	// Pages is how many pages there are.
	Pages uint64

	cmd    *exec.Cmd
	conn   net.Conn
	stderr tail
	done   chan struct{} // closed when the process was waited for and the pipe is drained
	exit   error         // what Wait returns, valid after done

	mu      sync.Mutex
	lastID  int
	pending map[int]chan *reply
}

// environment marks a process as a client; Main looks for it.
const environment = "FAULTLINE_HANDOFFTEST_CLIENT"

// Start starts a client process and returns once it has sent its handshake,
// which a listener need not have accepted yet. The process is killed when ctx
// ends or when this program does. Call Exit, or Kill and Wait, in the end.
//
// It fails with ErrNoHugePages if the pool can't hold the memory asked for.
func Start(ctx context.Context, config Config) (*Client, error) {
	config, err := config.normalize()
	if err != nil {
		return nil, fmt.Errorf("start a client: %w", err)
	}
	c := &Client{PageSize: config.PageSize, done: make(chan struct{}), pending: map[int]chan *reply{}}
	if err := c.spawn(ctx); err != nil {
		return nil, fmt.Errorf("start a client: %w", err)
	}
	c.Regions, err = call[[]handoff.Region](c, opStart, config)
	if err != nil {
		c.Kill()
		c.Wait()
		return nil, fmt.Errorf("start a client at %s: %w", config.Socket, err)
	}
	for _, r := range c.Regions {
		c.Pages += r.Size / c.PageSize
	}
	return c, nil
}

// spawn runs this program again, with one end of a socket pair.
func (c *Client) spawn(ctx context.Context) error {
	ours, theirs, err := socketpair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	c.conn = ours
	c.cmd = exec.CommandContext(ctx, "/proc/self/exe")
	c.cmd.Args[0] = os.Args[0]
	c.cmd.Env = clientEnvironment(os.Environ())
	c.cmd.ExtraFiles = []*os.File{theirs}
	c.cmd.Stdout, c.cmd.Stderr = &c.stderr, &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go c.parent(started)
	if err := <-started; err != nil {
		ours.Close()
		return err
	}
	c.PID = c.cmd.Process.Pid
	return nil
}

// parent stays on one thread for the whole life of the process, because
// Pdeathsig is sent when the thread that forked ends, not the program.
func (c *Client) parent(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := c.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		c.receive()
	}()
	c.exit = c.cmd.Wait()
	<-drained // the process held the other end, so this ends too
	c.conn.Close()
	close(c.done)
}

// receive hands out replies until the process closes its end.
func (c *Client) receive() {
	decoder := json.NewDecoder(bufio.NewReaderSize(c.conn, 1<<16))
	for {
		var r reply
		if decoder.Decode(&r) != nil {
			return
		}
		c.mu.Lock()
		waiter := c.pending[r.ID]
		delete(c.pending, r.ID)
		c.mu.Unlock()
		if waiter != nil {
			waiter <- &r
		}
	}
}

// call has the client do something and waits for the outcome.
func call[T any](c *Client, op string, arg any) (result T, err error) {
	raw, err := json.Marshal(arg)
	if err != nil {
		return result, fmt.Errorf("client %d: %s: %w", c.PID, op, err)
	}
	waiter := make(chan *reply, 1)
	c.mu.Lock()
	c.lastID++
	id := c.lastID
	c.pending[id] = waiter
	json.NewEncoder(c.conn).Encode(request{ID: id, Op: op, Arg: raw}) // fails if the process is ending: see done
	c.mu.Unlock()
	select {
	case r := <-waiter:
		return answer[T](c, op, r)
	case <-c.done:
	}
	select {
	case r := <-waiter:
		return answer[T](c, op, r)
	default:
		return result, fmt.Errorf("client %d: %s: %w (%s)", c.PID, op, ErrGone, c.epitaph())
	}
}

func answer[T any](c *Client, op string, r *reply) (result T, err error) {
	if err := r.error(); err != nil {
		return result, fmt.Errorf("client %d: %s: %w", c.PID, op, err)
	}
	if err := json.Unmarshal(r.Result, &result); err != nil {
		return result, fmt.Errorf("client %d: %s: reply: %w", c.PID, op, err)
	}
	return result, nil
}

// epitaph says how the process ended and what it last wrote.
func (c *Client) epitaph() string {
	text := "it exited"
	if c.exit != nil {
		text = c.exit.Error()
	}
	if said := strings.TrimSpace(c.stderr.String()); said != "" {
		text += "; it wrote: " + said
	}
	return text
}

// Kill ends the process with SIGKILL, in whatever it is doing. Wait tells when
// it has ended.
func (c *Client) Kill() error {
	err := c.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Exit ends the process in good order and waits for that. Commands that are
// under way fail with ErrGone.
func (c *Client) Exit() error {
	_, err := call[struct{}](c, opExit, nil)
	if err != nil && !errors.Is(err, ErrGone) {
		return err
	}
	return c.Wait()
}

// Wait waits until the process has ended and returns how: nil, an
// *exec.ExitError if it did not exit with success, as after Kill, or the error of
// the context that ended it.
func (c *Client) Wait() error {
	<-c.done
	return c.exit
}

// Done is closed once the process has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// clientEnvironment is env without what would change the client's runtime, and
// with the settings that keep it from stopping its own threads: see the package
// comment.
func clientEnvironment(env []string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"GODEBUG", "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GORACE"}, name)
	})
	return append(env, environment+"=1", "GODEBUG=asyncpreemptoff=1", "GOGC=off", fmt.Sprintf("GOMAXPROCS=%d", MaxThreads+8),
		"GORACE=atexit_sleep_ms=0") // a race detector waits a second for other threads
}

// socketpair makes the connection to a client, of which it gets the second end.
func socketpair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "client"), os.NewFile(uintptr(fds[1]), "parent")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return conn, theirs, nil
}

// tail keeps the last bytes written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const limit = 16 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if extra := len(t.text) - limit; extra > 0 {
		t.text = t.text[extra:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
