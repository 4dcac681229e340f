package session_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"faultline/handoff"
	"faultline/handoff/firecracker"
	"faultline/handoff/handofftest"
	"faultline/internal/snapshot"
	"faultline/internal/testkit"
	"faultline/pager"
	"faultline/session"
)

func TestMain(m *testing.M) {
	handofftest.Main()
	testkit.Main(m)
}

// file is a source that reads a file, with trouble where it is told to.
type file struct {
	*os.File
	size int64

	mu   sync.Mutex
	fail func(off int64) error // consulted for each extent; nil means fine
}

var errLost = errors.New("the content is lost")

const extent = 16 * 4096

func (f *file) Size() int64 { return f.size }

func (f *file) Extent(_ context.Context, off int64) (int64, bool, error) {
	return min(extent-off%extent, f.size-off), false, nil
}

func (f *file) ReadAt(_ context.Context, p []byte, off int64) error {
	f.mu.Lock()
	fail := f.fail
	f.mu.Unlock()
	for at := off - off%extent; fail != nil && at < off+int64(len(p)); at += extent {
		if err := fail(at); err != nil {
			return err
		}
	}
	_, err := f.File.ReadAt(p, off)
	return err
}

func (f *file) failing(fail func(off int64) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func newFile(t *testing.T, size int64) *file {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot")
	if err := snapshot.WriteFile(path, size, 1); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &file{File: f, size: size}
}

// accept starts a client and takes what it hands over.
func accept(t *testing.T, config handofftest.Config) (*handofftest.Client, *handoff.Client) {
	t.Helper()
	config.Socket = filepath.Join(t.TempDir(), "socket")
	l, err := firecracker.Listen(config.Socket, firecracker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	client, err := handofftest.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Kill(); client.Wait() })
	h, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return client, h
}

// newPool is not the shared one, which is never closed.
func newPool(t *testing.T) *pager.Pool {
	p := pager.NewPool(4)
	t.Cleanup(p.Close)
	return p
}

// serve starts a client and a session for it.
func serve(t *testing.T, src *file, config handofftest.Config, o session.Options) (*handofftest.Client, *session.Session) {
	t.Helper()
	config.Reference = src.Name()
	client, h := accept(t, config)
	o.Source = src
	o.Pool = newPool(t)
	s, err := session.Start(h, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Kill() })
	return client, s
}

func check(t *testing.T, c *handofftest.Client) {
	t.Helper()
	r, err := c.Check()
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		t.Fatal(err)
	}
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

// twoRegions lie apart and show the source from odd places on.
var twoRegions = []handofftest.Region{{Size: 24 * mib, Offset: 36 * kib}, {Size: 6 * mib, Offset: 25 * mib, Gap: mib}}

func TestEveryPageIsRight(t *testing.T) {
	for name, test := range map[string]struct {
		options session.Options
		touch   handofftest.TouchSpec
	}{
		"in order":               {},
		"at random, two threads": {touch: handofftest.TouchSpec{Random: true, Seed: 3, Threads: 2}},
		"nothing ahead":          {session.Options{NoPrefetch: true}, handofftest.TouchSpec{Random: true, Threads: 4}},
		"one page a fault":       {session.Options{NoPrefetch: true, BlockSize: 4096}, handofftest.TouchSpec{Random: true, Fraction: 0.2}},
		"written first":          {session.Options{}, handofftest.TouchSpec{Random: true, Write: true, Threads: 2}},
		"signals all the while":  {session.Options{NoPrefetch: true}, handofftest.TouchSpec{Random: true, Threads: 2, Storm: true, Fraction: 0.3}},
		"through system calls":   {session.Options{NoPrefetch: true}, handofftest.TouchSpec{Random: true, Threads: 2, Via: handofftest.ViaPipe}},
		"both at once":           {session.Options{NoPrefetch: true}, handofftest.TouchSpec{Random: true, Via: handofftest.ViaPipe, Storm: true, Fraction: 0.1}},
	} {
		t.Run(name, func(t *testing.T) {
			src := newFile(t, 32*mib)
			client, s := serve(t, src, handofftest.Config{Regions: twoRegions}, test.options)
			r, err := client.Touch(test.touch)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d pages in %v: first %v, p50 %v, p99 %v", r.Count, r.Wall, r.First, r.Latency.P50, r.Latency.P99)
			check(t, client)
			st := s.Stats()
			t.Logf("%d faults (%d repeated), %d pages by %d copies; server p50 %v p99 %v", st.Faults, st.Duplicates, st.PagesCopied, st.Copied, st.Content.Quantile(0.5), st.Content.Quantile(0.99))
			if err := client.Exit(); err != nil {
				t.Fatal(err)
			}
			if err := s.Wait(); err != nil {
				t.Fatalf("the client exited by itself, but the session ended with %v", err)
			}
		})
	}
}

// A balloon that inflates while pages are being filled in must leave zeros, however
// the copies and the removals fall.
func TestBalloonReadsZero(t *testing.T) {
	src := newFile(t, 32*mib)
	client, s := serve(t, src, handofftest.Config{Regions: twoRegions}, session.Options{})
	done := make(chan error, 1)
	go func() {
		_, err := client.Touch(handofftest.TouchSpec{Random: true, Seed: 9, Threads: 2})
		done <- err
	}()
	for first := uint64(0); first+200 < client.Pages; first += 600 {
		if err := client.Balloon(handofftest.PageRange{First: first, Count: 200}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	check(t, client)
	if st := s.Stats(); st.Removes == 0 {
		t.Error("no remove event was seen")
	}
}

func TestHugePages(t *testing.T) {
	testkit.HugePages(t, 8)
	src := newFile(t, 32*mib)
	client, _ := serve(t, src, handofftest.Config{PageSize: handofftest.HugePage, Regions: []handofftest.Region{{Size: 16 * mib, Offset: 12 * kib}}}, session.Options{NoPrefetch: true})
	if err := client.Balloon(handofftest.PageRange{First: 2, Count: 2}); err != nil {
		t.Fatal(err)
	}
	check(t, client)
}

// Content that can't be had gives SIGBUS on the pages that need it and leaves the
// rest working.
func TestLostContentIsPoison(t *testing.T) {
	src := newFile(t, 8*mib)
	src.failing(func(off int64) error {
		if off/extent == 3 {
			return errLost
		}
		return nil
	})
	var mu sync.Mutex
	var heard error
	client, s := serve(t, src, handofftest.Config{Regions: []handofftest.Region{{Size: 8 * mib}}}, session.Options{
		OnError: func(err error) {
			mu.Lock()
			defer mu.Unlock()
			heard = err
		},
	})
	p, err := client.Poisoned(3*16 + 5)
	if err != nil {
		t.Fatal(err)
	}
	if !p.SIGBUS || !p.EFAULT {
		t.Errorf("a page without content: %+v", p)
	}
	r, err := client.Touch(handofftest.TouchSpec{Random: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range r.Poisoned {
		if page/16 != 3 {
			t.Errorf("page %d raised SIGBUS, whose content can be had", page)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if !errors.Is(heard, errLost) {
		t.Errorf("OnError heard %v", heard)
	}
	if st := s.Stats(); st.PagesPoisoned == 0 {
		t.Error("no page is counted as poisoned")
	}
}

// A source that recovers in time costs the client nothing but the wait.
func TestPassingTroubleIsInvisible(t *testing.T) {
	src := newFile(t, 8*mib)
	tried := map[int64]int{}
	var mu sync.Mutex
	src.failing(func(off int64) error {
		mu.Lock()
		defer mu.Unlock()
		if tried[off]++; tried[off] > 2 {
			return nil
		}
		return errLost
	})
	client, _ := serve(t, src, handofftest.Config{Regions: []handofftest.Region{{Size: 8 * mib}}}, session.Options{})
	check(t, client)
}

func TestUntouchedClientIsFilled(t *testing.T) {
	src := newFile(t, 8*mib)
	client, s := serve(t, src, handofftest.Config{Regions: []handofftest.Region{{Size: 8 * mib}}}, session.Options{})
	<-s.Filled()
	if st := s.Stats(); st.Absent != 0 || st.Faults != 0 {
		t.Errorf("figures: %+v", st)
	}
	check(t, client)
}

func TestLeaveCompletesTheClient(t *testing.T) {
	src := newFile(t, 32*mib)
	client, s := serve(t, src, handofftest.Config{Regions: twoRegions}, session.Options{NoPrefetch: true})
	if _, err := client.Touch(handofftest.TouchSpec{Random: true, Fraction: 0.1}); err != nil {
		t.Fatal(err)
	}
	if err := client.Balloon(handofftest.PageRange{First: 50, Count: 100}); err != nil {
		t.Fatal(err)
	}
	if err := s.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t, client)
	if err := client.Balloon(handofftest.PageRange{First: 300, Count: 100}); err != nil {
		t.Fatal(err)
	}
	check(t, client)
	if err := client.Exit(); err != nil {
		t.Fatal(err)
	}
}

// The client is ended at once, though a fetch hangs and can't be interrupted.
func TestKillEndsTheClientFirst(t *testing.T) {
	src := newFile(t, 8*mib)
	stuck := make(chan struct{})
	src.failing(func(int64) error { <-stuck; return errLost })
	client, s := serve(t, src, handofftest.Config{Regions: []handofftest.Region{{Size: 8 * mib}}}, session.Options{NoPrefetch: true})
	touched := make(chan error, 1)
	go func() {
		_, err := client.Touch(handofftest.TouchSpec{})
		touched <- err
	}()
	for s.Stats().Faults == 0 {
	}
	killed := make(chan error, 1)
	go func() { killed <- s.Kill() }()
	<-client.Done()
	close(stuck)
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	if err := <-touched; !errors.Is(err, handofftest.ErrGone) {
		t.Errorf("the touching thread saw %v, not its end", err)
	}
	if !errors.Is(s.Wait(), session.ErrKilled) {
		t.Errorf("the session ended with %v", s.Wait())
	}
}

// A client may die at any moment; nothing of it stays.
func TestClientDies(t *testing.T) {
	src := newFile(t, 32*mib)
	for n := range uint64(20) {
		client, s := serve(t, src, handofftest.Config{Regions: twoRegions}, session.Options{NoPrefetch: n%2 == 0})
		touched := make(chan struct{})
		go func() {
			client.Touch(handofftest.TouchSpec{Random: true, Threads: 2, Seed: n})
			close(touched)
		}()
		for finished := false; !finished && s.Stats().Faults < 5*n; {
			select {
			case <-touched:
				finished = true
			default:
			}
		}
		client.Kill()
		if err := s.Wait(); err != nil {
			t.Fatalf("client %d: %v", n, err)
		}
		<-touched
	}
}

func TestUnsuitableClientsAreEnded(t *testing.T) {
	src := newFile(t, 8*mib)
	t.Run("content behind the end", func(t *testing.T) {
		client, h := accept(t, handofftest.Config{Regions: []handofftest.Region{{Size: 8 * mib, Offset: 4096}}})
		_, err := session.Start(h, session.Options{Source: src, Pool: newPool(t)})
		if !errors.Is(err, handoff.ErrBadRegions) {
			t.Errorf("got %v", err)
		}
		client.Wait()
	})
	t.Run("events that are not followed", func(t *testing.T) {
		client, h := accept(t, handofftest.Config{Regions: []handofftest.Region{{Size: 8 * mib}}, Features: 1<<2 | 1<<6})
		_, err := session.Start(h, session.Options{Source: src, Pool: newPool(t)})
		if !errors.Is(err, pager.ErrFeatures) {
			t.Errorf("got %v", err)
		}
		client.Wait()
	})
}

// A client that puts the shared descriptor in blocking mode could stop its server.
func TestBlockingModeEndsTheClient(t *testing.T) {
	src := newFile(t, 8*mib)
	client, h := accept(t, handofftest.Config{Regions: []handofftest.Region{{Size: 8 * mib}}})
	theirs, err := h.UFFD.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	s, err := session.Start(h, session.Options{Source: src, Pool: newPool(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(theirs.Int(), false); err != nil {
		t.Fatal(err)
	}
	go client.Touch(handofftest.TouchSpec{})
	if err := s.Wait(); !errors.Is(err, session.ErrKilled) {
		t.Errorf("the session ended with %v", err)
	}
	client.Wait()
}

func TestGuest(t *testing.T) {
	src := newFile(t, 64*mib)
	client, s := serve(t, src, handofftest.Config{Regions: []handofftest.Region{{Size: 64 * mib}}}, session.Options{NoPrefetch: true})
	r, err := client.RunGuest(handofftest.GuestSpec{Stride: 4099})
	if errors.Is(err, handofftest.ErrNoKVM) {
		testkit.Skip(t, err.Error(), testkit.HasKVM())
	}
	if err != nil {
		t.Fatal(err)
	}
	if r.Sum != r.Want {
		t.Errorf("the guest computed %#x, not %#x", r.Sum, r.Want)
	}
	t.Logf("%d pages in %v, %d faults", r.Pages, r.Wall, s.Stats().Faults)
	check(t, client)
}

// mapped is a source in memory, of which one page can't be read.
type mapped struct {
	*file
	memory []byte
}

func (m mapped) Bytes(off int64, n int) []byte { return m.memory[off:][:n] }

// A page of a mapped file that can't be read, as with a bad sector, must cost that
// page only. A load of it would be a signal that ends the server.
func TestUnreadableSourcePage(t *testing.T) {
	src := newFile(t, 8*mib)
	memory, err := unix.Mmap(int(src.Fd()), 0, 8*mib, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	const lost = 100
	if err := unix.Mprotect(memory[lost*4096:][:4096], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	client, h := accept(t, handofftest.Config{Reference: src.Name(), Regions: []handofftest.Region{{Size: 8 * mib}}})
	s, err := session.Start(h, session.Options{Source: mapped{src, memory}, Pool: newPool(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	r, err := client.Touch(handofftest.TouchSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Poisoned) != 1 || r.Poisoned[0] != lost {
		t.Errorf("poisoned: %v", r.Poisoned)
	}
	var others []uint64
	for p := range client.Pages {
		if p != lost {
			others = append(others, p)
		}
	}
	if r, err := client.Check(others...); err != nil || r.Err() != nil {
		t.Error(err, r.Err())
	}
}

// A client that negotiated no remove events gives pages up silently. If they had
// been there, a fault on them means zeros.
func TestPagesGivenUpWithoutAnEvent(t *testing.T) {
	src := newFile(t, 8*mib)
	client, _ := serve(t, src, handofftest.Config{NoFeatures: true, Regions: []handofftest.Region{{Size: 8 * mib}}}, session.Options{})
	check(t, client)
	if err := client.Balloon(handofftest.PageRange{First: 10, Count: 500}); err != nil {
		t.Fatal(err)
	}
	check(t, client)
}
