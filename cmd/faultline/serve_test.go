package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"faultline/handoff/handofftest"
	"faultline/internal/testkit"
)

func TestServeShowsEveryPage(t *testing.T) {
	for _, flags := range [][]string{nil, {"--codec", "raw"}} {
		f := packed(t, 16<<20, flags...)
		s := f.serve(t)
		c := f.client(t, s, nil)
		touch(t, c, handofftest.TouchSpec{Random: true, Fraction: 0.3, Threads: 4})
		checkAll(t, c)
		exit(t, c)
		ended := s.await("ended", 1)
		if ended["outcome"] != "exited" || ended["pid"] != float64(c.PID) || ended["session"] != 1.0 || ended["bytes"] != float64(f.size) {
			t.Errorf("%v", ended)
		}
		if filled := s.await("filled", 1); filled["seconds"].(float64) <= 0 {
			t.Errorf("%v", filled)
		}
		stats := ended["stats"].(map[string]any)
		for _, name := range []string{"faults", "duplicates", "removes", "pagesCopied", "pagesZeroed", "pagesPoisoned", "pagesAbsent", "fetches", "failedFetches", "latency"} {
			if _, ok := stats[name]; !ok {
				t.Errorf("the figures lack %s: %v", name, stats)
			}
		}
		if n := stats["pagesCopied"].(float64) + stats["pagesZeroed"].(float64); n != float64(c.Pages) {
			t.Errorf("%v pages were installed, want %d", n, c.Pages)
		}
		content := stats["latency"].(map[string]any)["content"].(map[string]any)
		if content["count"].(float64) < 1 || content["p50Seconds"].(float64) <= 0 || content["p99Seconds"].(float64) < content["p50Seconds"].(float64) {
			t.Errorf("%v", content)
		}
		s.stop()
	}
}

func TestServeTellsPeopleToo(t *testing.T) {
	f := packed(t, 1<<20)
	cmd := exec.Command("faultline", "serve", "app", "--store", f.store, "--firecracker", filepath.Join(t.TempDir(), "sock"), "--once")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	ready := make([]byte, 200)
	n, err := out.Read(ready)
	if err != nil || !strings.HasPrefix(string(ready[:n]), "serving app:latest (1.0 MiB) at ") {
		t.Fatalf("%s: %v", ready[:n], err)
	}
	socket := strings.TrimSpace(string(ready[:n])[strings.LastIndex(string(ready[:n]), " "):])
	c := f.client(t, &servingProcess{socket: socket}, nil)
	checkAll(t, c)
	exit(t, c)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	hasFields(t, stderr.String(), "faultline: session 1, process ", "started, 1.0 MiB", "filled after", "ended, exited after", "faults")
}

func TestServeSeveralClientsAtOnce(t *testing.T) {
	f := packed(t, 8<<20)
	s := f.serve(t)
	var wait sync.WaitGroup
	for i := range 6 {
		wait.Go(func() {
			version := []handofftest.Version{handofftest.V1_1, handofftest.V1_7, handofftest.V1_12}[i%3]
			c := f.client(t, s, func(config *handofftest.Config) {
				config.Version = version
				config.Regions = []handofftest.Region{{Size: f.size / 2}, {Size: f.size / 4, Offset: f.size / 2, Gap: 1 << 20}}
			})
			if _, err := c.Touch(handofftest.TouchSpec{Random: true, Seed: uint64(i), Threads: 2, Write: true, Fraction: 0.2}); err != nil {
				t.Error(err)
			}
			if r, err := c.Check(); err != nil || r.Err() != nil {
				t.Error(err, r.Err())
			}
			if err := c.Exit(); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for i := range 6 {
		if e := s.await("ended", i+1); e["outcome"] != "exited" {
			t.Errorf("%v", e)
		}
	}
	s.stop()
}

func TestServeOnlyWhatIsTouched(t *testing.T) {
	f := packed(t, 8<<20)
	s := f.serve(t, "--no-prefetch")
	c := f.client(t, s, nil)
	checkAll(t, c, 0, 1000)
	resident, err := c.Resident()
	if err != nil {
		t.Fatal(err)
	}
	if n := count(resident); n > c.Pages/2 {
		t.Errorf("%d pages of %d are there", n, c.Pages)
	}
	checkAll(t, c)
	exit(t, c)
	s.stop()
}

func count(ranges []handofftest.PageRange) (n uint64) {
	for _, r := range ranges {
		n += r.Count
	}
	return n
}

func TestBalloonedPagesReadZero(t *testing.T) {
	f := packed(t, 8<<20)
	s := f.serve(t)
	c := f.client(t, s, nil)
	touch(t, c, handofftest.TouchSpec{Fraction: 0.5})
	if err := c.Balloon(handofftest.PageRange{First: 100, Count: 300}, handofftest.PageRange{First: 1500, Count: 200}); err != nil {
		t.Fatal(err)
	}
	checkAll(t, c)
	exit(t, c)
	if removes := s.await("ended", 1)["stats"].(map[string]any)["removes"].(float64); removes < 2 {
		t.Errorf("%v removes were heard", removes)
	}
	s.stop()
}

func TestHugePages(t *testing.T) {
	const size = 8 << 20
	testkit.HugePages(t, size/handofftest.HugePage)
	f := packed(t, size)
	s := f.serve(t)
	c := f.client(t, s, func(config *handofftest.Config) { config.PageSize = handofftest.HugePage })
	checkAll(t, c)
	exit(t, c)
	s.stop()
}

func TestKVMGuest(t *testing.T) {
	f := packed(t, 64<<20)
	s := f.serve(t)
	c := f.client(t, s, nil)
	r, err := c.RunGuest(handofftest.GuestSpec{Stride: 4099})
	if errors.Is(err, handofftest.ErrNoKVM) {
		testkit.Skip(t, err.Error(), testkit.HasKVM())
	}
	if err != nil {
		t.Fatal(err)
	}
	if r.Sum != r.Want || r.Pages != c.Pages {
		t.Errorf("the guest's sum over %d pages is %#x, want %#x over %d", r.Pages, r.Sum, r.Want, c.Pages)
	}
	exit(t, c)
	s.stop()
}

// A frame that is not what it must be raises SIGBUS, in its own pages and no others.
func TestDamagedFrameIsPoison(t *testing.T) {
	f := packed(t, 8<<20)
	if err := damage(f.store, "pack", "flip", 0); err != nil {
		t.Fatal(err)
	}
	s := f.serve(t)
	c := f.client(t, s, nil)
	r := touch(t, c, handofftest.TouchSpec{})
	if len(r.Poisoned) == 0 {
		t.Fatal("no access raised SIGBUS")
	}
	if len(r.Poisoned) > 64 || r.Poisoned[len(r.Poisoned)-1] >= 64 {
		t.Errorf("the first frame is damaged, but poisoned are %v", r.Poisoned)
	}
	var healthy []uint64
	for n := range c.Pages {
		if !slices.Contains(r.Poisoned, n) {
			healthy = append(healthy, n)
		}
	}
	checkAll(t, c, healthy...)
	if p, err := c.Poisoned(r.Poisoned[0]); err != nil || !p.SIGBUS || !p.EFAULT {
		t.Errorf("%+v, %v", p, err)
	}
	failed := s.await("failed", 1)
	if text, _ := failed["error"].(string); !strings.Contains(text, "corrupt") || failed["session"] != 1.0 {
		t.Errorf("%v", failed)
	}
	exit(t, c)
	s.stop()
}

func TestStopLeavesClientsComplete(t *testing.T) {
	f := packed(t, 16<<20)
	s := f.serve(t, "--no-prefetch")
	var clients []*handofftest.Client
	for range 3 {
		c := f.client(t, s, nil)
		touch(t, c, handofftest.TouchSpec{Random: true, Fraction: 0.05})
		if err := c.Balloon(handofftest.PageRange{First: 10, Count: 10}); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	s.stop()
	if e := s.await("stopping", 1); e["count"] != 3.0 {
		t.Errorf("%v", e)
	}
	for i, c := range clients {
		if e := s.await("ended", i+1); e["outcome"] != "left" {
			t.Errorf("%v", e)
		}
		checkAll(t, c)
		exit(t, c)
	}
}

// Clients that had handed their memory over when the server was told to stop, but that
// it had not got to yet, are left complete like the others. Stopped, it gets to none.
func TestStopServesWhoHasCome(t *testing.T) {
	f := packed(t, 4<<20)
	s := f.serve(t, "--no-prefetch")
	s.signal(syscall.SIGSTOP)
	var clients []*handofftest.Client
	for range 3 {
		clients = append(clients, f.client(t, s, nil))
	}
	s.signal(syscall.SIGTERM)
	s.signal(syscall.SIGCONT)
	s.exits(0)
	for i := range clients { // all first: who was not served would make us wait
		if e := s.await("ended", i+1); e["outcome"] != "left" {
			t.Errorf("%v", e)
		}
	}
	for _, c := range clients {
		checkAll(t, c)
		exit(t, c)
	}
}

// The same clients, where the image can't be had: they are killed, not left to wait.
func TestStopKillsWhoHasComeInVain(t *testing.T) {
	f := packed(t, 8<<20)
	if err := damage(f.store, "pack", "flip", 0); err != nil {
		t.Fatal(err)
	}
	s := f.serve(t, "--no-prefetch", "--grace", "500ms")
	s.signal(syscall.SIGSTOP)
	c := f.client(t, s, nil)
	s.signal(syscall.SIGTERM)
	s.signal(syscall.SIGCONT)
	s.exits(7)
	if e := s.await("ended", 1); e["outcome"] != "killed" {
		t.Errorf("%v", e)
	}
	<-c.Done()
}

// A client that can't be completed is killed rather than shown zeros: when its time is
// up, or at the second signal.
func TestStopKillsWhatCantBeCompleted(t *testing.T) {
	f := packed(t, 8<<20)
	if err := damage(f.store, "pack", "flip", 0); err != nil {
		t.Fatal(err)
	}
	for _, second := range []bool{false, true} {
		grace := "500ms"
		if second {
			grace = "1h"
		}
		s := f.serve(t, "--no-prefetch", "--grace", grace)
		c := f.client(t, s, nil)
		checkAll(t, c, 1000)
		s.signal(syscall.SIGINT)
		s.await("stopping", 1)
		if second {
			s.signal(syscall.SIGINT)
		}
		s.exits(7)
		if e := s.await("ended", 1); e["outcome"] != "killed" || e["error"] == nil {
			t.Errorf("%v", e)
		}
		hasFields(t, s.stderr.String(), "faultline: not all clients could be kept")
		<-c.Done()
	}
}

func TestServeOnce(t *testing.T) {
	f := packed(t, 1<<20)
	s := f.serve(t, "--once")
	c := f.client(t, s, nil)
	checkAll(t, c)
	if _, err := os.Stat(s.socket); err == nil {
		t.Error("a second client could come")
	}
	exit(t, c)
	s.exits(0)
}

func TestServeAnUntouchedClientIsFilled(t *testing.T) {
	f := packed(t, 4<<20)
	s := f.serve(t)
	c := f.client(t, s, nil)
	s.await("filled", 1)
	if resident, err := c.Resident(); err != nil || count(resident) != c.Pages {
		t.Errorf("%v pages are there: %v", resident, err)
	}
	checkAll(t, c)
	exit(t, c)
	s.stop()
}

// Whoever reads the events may go away: clients are served on.
func TestServeSurvivesItsReader(t *testing.T) {
	f := packed(t, 1<<20)
	socket := filepath.Join(t.TempDir(), "sock")
	script := `faultline serve app --json --store "$0" --firecracker "$1" | head -n 1; sleep 30`
	cmd := exec.Command("sh", "-c", script, f.store, socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	}()
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
	}
	for range 3 {
		c := f.client(t, &servingProcess{socket: socket}, nil)
		checkAll(t, c)
		exit(t, c)
	}
}
