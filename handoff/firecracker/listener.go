package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"faultline/handoff"
)

// The values of Options that are zero.
const (
	DefaultTimeout    = 5 * time.Second
	DefaultHandshakes = 64
)

// Options of a Listener. The zero value is fit for use.
type Options struct {
	// Timeout is how long a client may take from connecting to the end of its
	// message; 0 is DefaultTimeout.
	Timeout time.Duration
	// Handshakes is how many may be under way at once, those included that wait for
	// Accept; 0 is DefaultHandshakes. When one more comes, the oldest unfinished one
	// is refused: Firecracker sends right after it has connected.
	Handshakes int
	// Refused is told of every client that was refused, as a *HandshakeError. It
	// is called from the handshakes' goroutines and must not block. nil drops them.
	Refused func(error)
}

// A Listener receives clients at a socket. Its methods may be called from several
// goroutines. Whoever has it must Close it.
type Listener struct {
	path     string
	options  Options
	socket   *net.UnixListener
	file     os.FileInfo // the socket's file, as it was made
	clients  chan *handoff.Client
	stopping chan struct{} // no new clients
	closing  chan struct{} // and nobody will take those that are there
	left     chan struct{} // has an element when a handshake has left
	stop     func() error
	close    func() error
	work     sync.WaitGroup
	failed   error // why accepting ended, valid once clients is closed

	mu      sync.Mutex
	pending []*pending // from oldest to newest
}

// A pending is a handshake under way. The mutex guards its marks.
type pending struct {
	conn     *net.UnixConn
	crowded  bool // it was told to make room
	finished bool // it has its message, or has failed
}

// Listen makes a socket at path, with mode 0600 from the first moment on, and
// starts to receive clients. To let a VMM of another user connect, change the
// file's owner afterwards. The socket of a server that is dead is replaced.
//
// Errors: ErrInUse, ErrNotSocket, ErrBadPath (which a path longer than 107 bytes
// is), or what the file system says.
func Listen(path string, options Options) (*Listener, error) {
	if options.Timeout == 0 {
		options.Timeout = DefaultTimeout
	}
	if options.Handshakes == 0 {
		options.Handshakes = DefaultHandshakes
	}
	socket, err := bind(path)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	socket.SetUnlinkOnClose(false) // the path may name another's by then
	l := &Listener{
		path: path, options: options, socket: socket,
		clients: make(chan *handoff.Client), stopping: make(chan struct{}), closing: make(chan struct{}),
		left: make(chan struct{}, 1),
	}
	l.stop = sync.OnceValue(l.leaveSocket)
	l.close = sync.OnceValue(l.shut)
	if l.file, err = os.Lstat(path); err != nil {
		socket.Close()
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	l.work.Go(l.acceptAll)
	return l, nil
}

// Addr is the path of the socket.
func (l *Listener) Addr() string { return l.path }

// Accept waits for the next client whose handshake was in order; clients that
// were refused are told of by Options.Refused and do not end the waiting. The
// regions are in order by themselves: check with handoff.CheckRegions whether
// they fit the image.
//
// It fails with ctx's error, with ErrClosed after Stop or Close, or with what made the
// socket fail for good.
func (l *Listener) Accept(ctx context.Context) (*handoff.Client, error) {
	select {
	case c, ok := <-l.clients:
		if !ok {
			return nil, fmt.Errorf("accept at %s: %w", l.path, l.failed)
		}
		return c, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("accept at %s: %w", l.path, context.Cause(ctx))
	}
}

// Stop removes the socket and ends the handshakes that are under way. Clients whose
// handshake is in order wait for Accept as before: their faults are nobody's until
// they are taken. Then it fails with ErrClosed.
func (l *Listener) Stop() error { return l.stop() }

// Close does as Stop does, and gives up the clients that no Accept has taken.
func (l *Listener) Close() error { return l.close() }

// backlogTime is how long nobody may come after Stop, before all who came earlier are known to have been taken.
const backlogTime = 50 * time.Millisecond

func (l *Listener) leaveSocket() error {
	close(l.stopping)
	var errs []error
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
		errs = append(errs, os.Remove(l.path))
	}
	// Who has connected by now may have sent all it will ever send. The path is gone, so
	// that is soon everyone.
	errs = append(errs, l.socket.SetDeadline(time.Now().Add(backlogTime)))
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.pending {
		p.conn.SetReadDeadline(past)
	}
	return errors.Join(errs...)
}

func (l *Listener) shut() error {
	err := l.stop()
	close(l.closing)
	l.work.Wait()
	return errors.Join(err, l.socket.Close())
}

// acceptAll starts a handshake for each connection, until the socket fails.
func (l *Listener) acceptAll() {
	var handshakes sync.WaitGroup
	for {
		if l.isStopping() { // the last one may have waited until there was room
			l.socket.SetDeadline(time.Now().Add(backlogTime))
		}
		conn, err := l.socket.AcceptUnix()
		if err == nil {
			p := l.enter(conn)
			handshakes.Go(func() { l.handshake(p) })
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			l.failed = ErrClosed
			break
		} else if !transient(err) {
			l.failed = err
			break
		} else if !l.pause(100 * time.Millisecond) {
			l.failed = ErrClosed
			break
		}
	}
	handshakes.Wait()
	close(l.clients)
}

// transient errors pass, when others close descriptors for instance; the
// connection waits in the backlog meanwhile.
func transient(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) ||
		errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ECONNABORTED)
}

// pause reports whether the listener is still open afterwards.
func (l *Listener) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-l.stopping:
		return false
	}
}
