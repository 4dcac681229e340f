package pager

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"faultline/uffd"
)

// kernel is a world: the real one, with a client process.
type kernel struct {
	base    uint64
	cmd     *exec.Cmd
	control int
	threads []int // sockets
	ids     []int // of the client's threads
	fd      *uffd.FD
	target  *Userfault
	advice  []uint64 // that tells neighbouring mappings apart, by page
	busy    []command
	running []bool
	done    []outcome
	dead    bool
}

func startKernel() (*kernel, error) {
	k := &kernel{advice: make([]uint64, clientPages), busy: make([]command, clientThreads), running: make([]bool, clientThreads)}
	k.cmd = exec.Command("/proc/self/exe")
	// Without preemption signals, which would repeat fault messages at any time.
	k.cmd.Env = append(os.Environ(), clientEnv+"=1", "GODEBUG=asyncpreemptoff=1")
	k.cmd.Stderr = os.Stderr
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for i := range 1 + clientThreads {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		theirs := os.NewFile(uintptr(pair[1]), "client")
		defer theirs.Close()
		k.cmd.ExtraFiles = append(k.cmd.ExtraFiles, theirs)
		if i == 0 {
			k.control = pair[0]
		} else {
			k.threads = append(k.threads, pair[0])
		}
	}
	if err := k.cmd.Start(); err != nil {
		return nil, err
	}
	return k, k.greet()
}

// greet takes the client's descriptor and addresses.
func (k *kernel) greet() error {
	hello, rights := make([]byte, 8*(1+clientThreads)), make([]byte, unix.CmsgSpace(4))
	n, rn, _, _, err := unix.Recvmsg(k.control, hello, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n != len(hello) {
		return fmt.Errorf("the client's greeting: %d bytes, %v", n, err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	k.base = binary.NativeEndian.Uint64(hello)
	for t := range clientThreads {
		k.ids = append(k.ids, int(binary.NativeEndian.Uint64(hello[8*(1+t):])))
	}
	if k.fd, err = uffd.Adopt(fds[0]); err != nil {
		return err
	}
	k.target, err = NewUserfault(k.fd)
	return err
}

func (k *kernel) close() error {
	k.die()
	for _, fd := range append(k.threads, k.control) {
		unix.Close(fd)
	}
	return errors.Join(k.target.Close(), k.fd.Close())
}

func (k *kernel) order(t int, c command) {
	k.busy[t], k.running[t] = c, true
	transmit(k.threads[t], c)
}

func (k *kernel) access(t, p int, store bool, value uint64) {
	c := command{Op: cmdLoad, Page: uint64(p), Value: value}
	if store {
		c.Op = cmdStore
	}
	k.order(t, c)
}

func (k *kernel) remove(t, p, n int) {
	k.order(t, command{Op: cmdRemove, Page: uint64(p), Count: uint64(n), Value: uint64(n)})
}

func (k *kernel) signal(t int) { unix.Tgkill(k.cmd.Process.Pid, k.ids[t], unix.SIGURG) }

// split gives the pages from p to the end of their mapping advice that neither
// they nor what follows has, so that nothing can be merged again.
func (k *kernel) split(p int) {
	if k.dead || p == 0 || p == firstPages+gapPages || k.advice[p] != k.advice[p-1] {
		return
	}
	end := p
	for end < clientPages && end != firstPages && k.advice[end] == k.advice[p] {
		end++
	}
	fresh := uint64(0)
	for fresh == k.advice[p] || end < clientPages && fresh == k.advice[end] {
		fresh++
	}
	for q := p; q < end; q++ {
		k.advice[q] = fresh
	}
	transmit(k.control, command{Op: cmdSplit, Page: uint64(p), Count: uint64(end - p), Value: fresh})
	receive[report](k.control)
}

func (k *kernel) die() {
	if !k.dead {
		k.cmd.Process.Kill()
		k.cmd.Wait()
		k.dead = true
	}
}

// outcomes takes the reports that are there.
func (k *kernel) outcomes() []outcome {
	for t, fd := range k.threads {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(fds, 0); n != 1 || k.dead || !k.running[t] {
			continue
		}
		r, ok := receive[report](fd)
		if !ok {
			continue
		}
		c := k.busy[t]
		k.running[t] = false
		k.done = append(k.done, outcome{thread: t, page: int(c.Page), store: c.Op == cmdStore, removal: c.Op == cmdRemove, bus: r.Bus != 0, value: r.Value})
	}
	done := k.done
	k.done = nil
	return done
}

func (k *kernel) events() []Event {
	buf := make([]Event, 64)
	n := must(k.target.Events(buf))
	return buf[:n]
}

func (k *kernel) span(p, n int) Span {
	return Span{Address: k.base + uint64(p)*modelPage, Size: uint64(n) * modelPage, PageSize: modelPage}
}

func (k *kernel) install(kind ActionKind, p, n int, content []uint64) (int, unix.Errno) {
	var done int64
	var err error
	switch kind {
	case ActionCopy:
		pages := make([]byte, n*modelPage)
		for i, v := range content {
			binary.NativeEndian.PutUint64(pages[i*modelPage:], v)
		}
		done, err = k.target.Copy(k.span(p, n), pages)
	case ActionZero:
		done, err = k.target.Zero(k.span(p, n))
	case ActionPoison:
		done, err = k.target.Poison(k.span(p, n))
	}
	return int(done / modelPage), errnoOf(err)
}

func (k *kernel) wake(p int) { check(k.target.Wake(k.span(p, 1))) }

// lockstep is the model and the kernel side by side: whatever one says, the other
// must say too.
type lockstep struct {
	m        *model
	k        *kernel
	mismatch error
}

func (l *lockstep) differ(format string, args ...any) {
	if l.mismatch == nil {
		l.mismatch = fmt.Errorf(format, args...)
	}
}

func (l *lockstep) access(t, p int, store bool, value uint64) {
	l.m.access(t, p, store, value)
	l.k.access(t, p, store, value)
}

func (l *lockstep) remove(t, p, n int) {
	l.m.remove(t, p, n)
	l.k.remove(t, p, n)
}

// signal leaves threads alone whose message is unread: the moment at which the
// kernel takes the message back and sends it again can't be waited for.
func (l *lockstep) signal(t int) {
	if l.m.threads[t].phase == thWaiting && !l.m.dead {
		l.m.signal(t)
		l.k.signal(t)
	}
}

func (l *lockstep) split(p int) {
	l.m.split(p)
	l.k.split(p)
}

func (l *lockstep) die() {
	l.m.die()
	l.k.die()
}

func (l *lockstep) wake(p int) {
	l.m.wake(p)
	l.k.wake(p)
}

func (l *lockstep) install(kind ActionKind, p, n int, content []uint64) (int, unix.Errno) {
	l.settle()
	done, errno := l.m.install(kind, p, n, content)
	realDone, realErrno := l.k.install(kind, p, n, content)
	if done != realDone || errno != realErrno {
		l.differ("%v of %d pages from %d: the model did %d and said %d (%v), the kernel did %d and said %d (%v)",
			kind, n, p, done, errno, errno, realDone, realErrno, realErrno)
	}
	return realDone, realErrno
}

func (l *lockstep) events() []Event {
	l.settle()
	want, got := l.m.events(), l.k.events()
	order := func(a, b Event) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }
	if a, b := slices.SortedFunc(slices.Values(want), order), slices.SortedFunc(slices.Values(got), order); !slices.Equal(a, b) {
		l.differ("the model reports %v, the kernel %v", a, b)
	}
	return got
}

// outcomes waits for what the model says the threads have finished.
func (l *lockstep) outcomes() []outcome {
	want := slices.SortedFunc(slices.Values(l.m.outcomes()), byThread)
	var got []outcome
	for deadline := time.Now().Add(3 * time.Second); len(got) < len(want) && time.Now().Before(deadline) && !l.m.dead; {
		got = append(got, l.k.outcomes()...)
		runtime.Gosched()
	}
	l.settle()
	got = slices.SortedFunc(slices.Values(append(got, l.k.outcomes()...)), byThread)
	if !l.m.dead && !slices.Equal(want, got) {
		l.differ("the model's threads finished %v, the kernel's %v", want, got)
	}
	return got
}

// settle waits until every thread of the client stands where the model says.
func (l *lockstep) settle() {
	if l.m.dead || l.mismatch != nil {
		return
	}
	deadline := time.Now().Add(3 * time.Second)
	for why := l.unsettled(); why != ""; why = l.unsettled() {
		if time.Now().After(deadline) {
			l.differ("the client does not settle: %s", why)
			return
		}
		runtime.Gosched()
	}
}

func (l *lockstep) unsettled() string {
	unread, waiting := 0, 0
	for t, th := range l.m.threads {
		switch th.phase {
		case thFault:
			unread++
		case thWaiting:
			waiting++
		case thRemove:
			if at := l.k.where(t); !strings.Contains(at, "userfaultfd") {
				return fmt.Sprintf("thread %d is not in madvise but in %q", t, at)
			}
		}
	}
	info := must(l.k.fd.Info())
	if info.Pending != unread || info.Total != unread+waiting {
		return fmt.Sprintf("%d faults are unread and %d in all, the model has %d and %d", info.Pending, info.Total, unread, unread+waiting)
	}
	return ""
}

// where is the kernel function in which a thread sleeps.
func (k *kernel) where(t int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/wchan", k.cmd.Process.Pid, k.ids[t]))
	return string(text)
}

// TestModelAgreesWithKernel runs schedules on the model and on the real kernel
// side by side. They must say the same, and the promise must hold on both.
func TestModelAgreesWithKernel(t *testing.T) {
	checks(t, "200")
	rapid.Check(t, func(t *rapid.T) {
		schedule := drawSchedule(t)
		k, err := startKernel()
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := k.close(); err != nil {
				t.Fatal(err)
			}
		}()
		m := newModel(k.base, clientVMAs(), clientThreads, true)
		l := &lockstep{m: m, k: k}
		x := newTrial(k.base, l, m, rapid.Bool().Draw(t, "prefetch"))
		for i, s := range schedule {
			if err := errors.Join(x.run(s), l.mismatch); err != nil {
				t.Fatalf("step %d %v: %v", i, s, err)
			}
		}
		if err := errors.Join(x.finish(), l.mismatch); err != nil {
			t.Fatalf("at the end: %v", err)
		}
	})
}
