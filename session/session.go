// Package session serves one client from a source of pages, such as an image: it
// puts the engine, the client's userfaultfd and the source together, and sees to
// it that the client never outlives its memory.
//
// A session takes the client over. However it ends, the userfaultfd is closed only
// when the client is gone or needs nobody to answer its faults: a descriptor that
// is closed under a living client turns its missing pages into zeros.
//
// An engine's thread has no claim to a processor of the Go scheduler. Programs that
// keep all of them busy should set GOMAXPROCS above the number of CPUs, as the
// faultline command does; with GOMAXPROCS at the number of CPUs and as many busy
// goroutines, faults wait for a time slice of 10 ms.
package session

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"faultline/handoff"
	"faultline/pager"
	"faultline/uffd"
)

// ErrKilled means that the client had to be ended: because its content could not be
// had, because it broke the rules, or because somebody asked for it.
var ErrKilled = pager.ErrKilled

// Options say how to serve a client. Source must be given.
type Options struct {
	// Source has the content. If it has a method FrameSize() int64, blocks of that
	// many bytes are fetched; otherwise 64 pages.
	Source pager.Source
	// Pool runs the fetching; nil means one that all sessions of the process share.
	Pool *pager.Pool
	// NoPrefetch leaves what nobody asks for alone. Otherwise everything is filled in
	// the background, as fast as demand allows.
	NoPrefetch bool
	// BlockSize in bytes overrides the source's frame size, if not zero.
	BlockSize uint64
	// Slots is how many blocks may be held in memory at once; zero means 12.
	Slots int
	// Pin binds the engine's thread to CPU.
	Pin bool
	CPU int
	// OnError hears of content that could not be had. It must not block.
	OnError func(error)
}

// A Session is one client being served.
type Session struct {
	client *handoff.Client
	target *pager.Userfault
	engine *pager.Engine
	done   chan struct{}
	err    error
}

// Start begins to serve a client, of which it takes ownership in any case: where
// Start fails the client has been ended, because nobody would answer its faults.
func Start(client *handoff.Client, o Options) (*Session, error) {
	s, err := start(client, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("serve process %d: %w", client.PID, err), dismiss(client))
	}
	return s, nil
}

func start(client *handoff.Client, o Options) (*Session, error) {
	if client.PidFD < 0 {
		return nil, errors.New("there is no pidfd, without which it could outlive its memory")
	}
	if err := handoff.CheckRegions(client.Regions, uint64(o.Source.Size())); err != nil {
		return nil, err
	}
	target, err := pager.NewUserfault(client.UFFD)
	if err != nil {
		return nil, err
	}
	engine, err := pager.NewEngine(pager.Options{
		Source: o.Source, Target: target, Regions: regions(client), Pool: pool(o),
		Kill: func() error { return kill(client) }, Exit: client.PidFD,
		BlockSize: blockSize(o), Slots: o.Slots, Prefetch: !o.NoPrefetch, Pin: o.Pin, CPU: o.CPU, OnError: o.OnError,
	})
	if err != nil {
		return nil, errors.Join(err, target.Close())
	}
	s := &Session{client: client, target: target, engine: engine, done: make(chan struct{})}
	go s.run()
	return s, nil
}

func regions(client *handoff.Client) []pager.Region {
	rs := make([]pager.Region, len(client.Regions))
	for i, r := range client.Regions {
		rs[i] = pager.Region(r)
	}
	return rs
}

// sharedPool has several workers a CPU, since most of what they do is waiting;
// decoding and hashing limit themselves.
var sharedPool = sync.OnceValue(func() *pager.Pool { return pager.NewPool(4 * runtime.NumCPU()) })

func pool(o Options) *pager.Pool {
	if o.Pool != nil {
		return o.Pool
	}
	return sharedPool()
}

func blockSize(o Options) uint64 {
	if o.BlockSize != 0 {
		return o.BlockSize
	}
	if f, ok := o.Source.(interface{ FrameSize() int64 }); ok {
		return uint64(f.FrameSize())
	}
	return 0
}

// run serves the client and then parts from it.
func (s *Session) run() {
	err := s.engine.Run(context.Background())
	switch {
	case err == nil && !exited(s.client, 0): // it was left complete
		err = errors.Join(unregister(s.client), s.client.Close())
	case err == nil:
		err = s.client.Close()
	default:
		err = errors.Join(err, dismiss(s.client))
	}
	s.err = errors.Join(err, s.target.Close())
	close(s.done)
}

// unregister leaves a client whose pages are all there to itself. The kernel
// answers what it gives up from now on, with zeros.
func unregister(client *handoff.Client) error {
	for _, r := range client.Regions {
		err := client.UFFD.Unregister(uffd.Range{Start: r.Address, Len: r.Size})
		if err != nil && !errors.Is(err, unix.ENOMEM) { // ENOMEM: it exited meanwhile
			return err
		}
	}
	return nil
}

// exitPatience is how long a killed client may take to be gone: it may have much
// memory to free, or sit in a call that can't be interrupted.
const exitPatience = 30 * time.Second

// dismiss ends a client and gives up what it brought. If it can't be ended, its
// userfaultfd stays open for as long as this process lives: it may wait for ever, but
// it won't see zeros.
func dismiss(client *handoff.Client) error {
	err := end(client)
	if err != nil {
		client.UFFD.Disown()
	}
	return errors.Join(err, client.Close())
}

// end ends the client and waits until it is gone.
func end(client *handoff.Client) error {
	if err := kill(client); err != nil {
		return err
	}
	if !exited(client, exitPatience) {
		return fmt.Errorf("process %d was killed but has not exited after %v", client.PID, exitPatience)
	}
	return nil
}

func kill(client *handoff.Client) error {
	err := unix.PidfdSendSignal(client.PidFD, unix.SIGKILL, nil, 0)
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill process %d: %w", client.PID, err)
	}
	return nil
}

func exited(client *handoff.Client, patience time.Duration) bool {
	deadline := time.Now().Add(patience)
	fds := []unix.PollFd{{Fd: int32(client.PidFD), Events: unix.POLLIN}}
	for {
		ts := unix.NsecToTimespec(int64(max(time.Until(deadline), 0)))
		n, err := unix.Ppoll(fds, &ts, nil)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// PID is the client's process.
func (s *Session) PID() int { return s.client.PID }

// Done is closed when the session has ended and everything was given back.
func (s *Session) Done() <-chan struct{} { return s.done }

// Wait waits for the end of the session. It is nil if the client exited by itself,
// or was left complete; ErrKilled if it had to be ended.
func (s *Session) Wait() error {
	<-s.done
	return s.err
}

// Filled is closed once no content is missing in the client any more.
func (s *Session) Filled() <-chan struct{} { return s.engine.Filled() }

// Stats gives the session's figures as they are now.
func (s *Session) Stats() pager.Stats { return s.engine.Stats() }

// Leave installs all that is missing and then leaves the client to itself, with
// nothing registered. If ctx ends first the session goes on, and still leaves once
// everything is there.
func (s *Session) Leave(ctx context.Context) error {
	s.engine.Leave()
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("leave process %d: %w", s.client.PID, ctx.Err())
	}
}

// Kill ends the client, then the session.
func (s *Session) Kill() error {
	s.engine.Kill()
	err := s.Wait()
	if errors.Is(err, ErrKilled) {
		return nil
	}
	return err
}
