package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"faultline/handoff/handofftest"
)

func TestSocketInUse(t *testing.T) {
	f := packed(t, 1<<20)
	s := f.serve(t)
	serve := func(socket string) (int, string) {
		out, err := exec.Command("faultline", "serve", "app", "--store", f.store, "--firecracker", socket).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("%v: %s", err, out)
		}
		return exit.ExitCode(), string(out)
	}
	code, text := serve(s.socket)
	if code != 9 {
		t.Errorf("exit code %d: %s", code, text)
	}
	hasFields(t, text, "another server listens there", "choose another path")
	if code, text := serve(f.memory); code != 9 || !strings.Contains(text, "not a socket") {
		t.Errorf("exit code %d: %s", code, text)
	}
	if code, text := serve("/tmp/" + strings.Repeat("x", 200)); code != 2 || !strings.Contains(text, "107") {
		t.Errorf("exit code %d: %s", code, text)
	}
	c := f.client(t, s, nil) // it listens still
	checkAll(t, c)
	exit(t, c)
	s.stop()
}

func TestBadHandshakesAreRefused(t *testing.T) {
	f := packed(t, 1<<20)
	s := f.serve(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	const region = `[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":4096}]`
	for i, h := range []struct {
		message string
		fds     []int
		reason  string
	}{
		{region, nil, "no descriptor"},
		{region, []int{int(null.Fd())}, "not a userfaultfd"},
		{region, []int{int(null.Fd()), int(null.Fd())}, "more than one"},
		{`{"no":"array"}`, []int{int(null.Fd())}, "malformed"},
		{`[`, []int{int(null.Fd())}, "hung up"},
	} {
		s.send(h.message, h.fds...)
		if e := s.await("refused", i+1); !strings.Contains(e["error"].(string), h.reason) {
			t.Errorf("%s: %v, want %q", h.message, e, h.reason)
		}
	}
	// Regions that lie outside of the image: the client exists, and can't be served.
	doomed, err := handofftest.Start(t.Context(), handofftest.Config{
		Socket: s.socket, Regions: []handofftest.Region{{Size: 4096, Offset: f.size}},
	})
	if err != nil && !errors.Is(err, handofftest.ErrGone) { // it may be killed before it can tell that it has begun
		t.Fatal(err)
	}
	if e := s.await("ended", 1); e["outcome"] != "killed" || !strings.Contains(e["error"].(string), "behind the end") {
		t.Errorf("%v", e)
	}
	if doomed != nil {
		<-doomed.Done()
	}

	c := f.client(t, s, nil)
	checkAll(t, c)
	exit(t, c)
	s.signal(syscall.SIGTERM)
	s.exits(7) // because of the one
}

func TestClientsDieAtAnyMoment(t *testing.T) {
	f := packed(t, 8<<20)
	s := f.serve(t)
	bystander := f.client(t, s, nil)
	const n = 20
	for i := range n {
		c := f.client(t, s, nil)
		go c.Touch(handofftest.TouchSpec{Random: true, Seed: uint64(i), Threads: 3})
		time.Sleep(time.Duration(rand.IntN(8000)) * time.Microsecond)
		if err := c.Kill(); err != nil {
			t.Fatal(err)
		}
		c.Wait()
		if e := s.await("ended", i+1); e["outcome"] != "exited" {
			t.Errorf("%v", e)
		}
	}
	checkAll(t, bystander)
	exit(t, bystander)
	s.stop()
}
