package handofftest_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"faultline/handoff/handofftest"
	"faultline/internal/testkit"
)

const mib = 1 << 20

func TestTouchSeesTheImage(t *testing.T) {
	path, image := imageFile(t, 16*mib)
	for _, test := range []struct {
		name string
		spec handofftest.TouchSpec
	}{
		{"in order", handofftest.TouchSpec{}},
		{"random, four threads", handofftest.TouchSpec{Random: true, Seed: 1, Threads: 4}},
		{"pipe", handofftest.TouchSpec{Via: handofftest.ViaPipe, Threads: 2}},
		{"process_vm_readv", handofftest.TouchSpec{Via: handofftest.ViaProcess, Threads: 2}},
		{"storm", handofftest.TouchSpec{Storm: true, Threads: 2, Fraction: 0.5}},
		{"storm on a pipe", handofftest.TouchSpec{Storm: true, Threads: 2, Fraction: 0.5, Via: handofftest.ViaPipe}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, server := start(t, handofftest.Config{Reference: path, Regions: []handofftest.Region{{Size: 16 * mib}}})
			testkit.Serve(t, server, image)
			test.spec.Samples = true
			r := touch(t, c, test.spec)
			want := c.Pages
			if test.spec.Fraction > 0 {
				want /= 2
			}
			if r.Count != want || uint64(len(r.Samples)) != want || !slices.IsSorted(r.Samples) || len(r.Poisoned) > 0 {
				t.Errorf("touched %d pages with %d samples, %d poisoned, want %d", r.Count, len(r.Samples), len(r.Poisoned), want)
			}
			if r.First <= 0 || r.First > r.Wall || r.Latency.P50 > r.Latency.P99 || int64(r.Latency.Max) != r.Samples[len(r.Samples)-1] {
				t.Errorf("implausible times: %+v", r)
			}
			t.Logf("%d pages in %v, first after %v, %+v", r.Count, r.Wall, r.First, r.Latency)
			check(t, c)
			if again := touch(t, c, handofftest.TouchSpec{}); again.Count != 0 {
				t.Errorf("%d pages were left untouched", again.Count)
			}
			if err := c.Exit(); err != nil {
				t.Errorf("exit: %v", err)
			}
		})
	}
}

func TestTwoRegionsWithGap(t *testing.T) {
	path, image := imageFile(t, 4*mib)
	c, server := start(t, handofftest.Config{Reference: path, Regions: []handofftest.Region{
		{Size: 1 * mib, Offset: 2 * mib}, {Size: 2 * mib, Gap: 3 * mib},
	}})
	testkit.Serve(t, server, image)
	if a, b := c.Regions[0], c.Regions[1]; b.Address != a.Address+4*mib || a.Offset != 2*mib || b.Offset != 0 {
		t.Errorf("regions are %+v", c.Regions)
	}
	touch(t, c, handofftest.TouchSpec{Pages: []uint64{0, 255, 256, 767}})
	resident, err := c.Resident()
	if err != nil {
		t.Fatal(err)
	}
	if want := []handofftest.PageRange{{0, 1}, {255, 2}, {767, 1}}; !slices.Equal(resident, want) {
		t.Errorf("resident are %v, want %v", resident, want)
	}
	check(t, c)
	if _, err := c.Touch(handofftest.TouchSpec{Pages: []uint64{768}}); err == nil {
		t.Error("a page behind the end was touched")
	}
}

func TestWriteAndBalloon(t *testing.T) {
	path, image := imageFile(t, 4*mib)
	c, server := start(t, handofftest.Config{Reference: path, Regions: []handofftest.Region{{Size: 4 * mib}}})
	testkit.Serve(t, server, image)
	if err := c.Write(1, 2, 3, 500); err != nil {
		t.Fatal(err)
	}
	touch(t, c, handofftest.TouchSpec{Pages: []uint64{4, 5}, Write: true, Via: handofftest.ViaPipe})
	touch(t, c, handofftest.TouchSpec{Pages: []uint64{6, 7}, Write: true, Via: handofftest.ViaProcess})
	check(t, c, 1, 2, 3, 4, 5, 6, 7, 500)
	// Present pages, missing ones, and written ones.
	if err := c.Balloon(handofftest.PageRange{First: 2, Count: 10}, handofftest.PageRange{First: 1000, Count: 24}); err != nil {
		t.Fatal(err)
	}
	check(t, c)
	if err := c.Write(2, 1001); err != nil {
		t.Fatal(err)
	}
	check(t, c)
}

func TestBalloonWhileTouching(t *testing.T) {
	path, image := imageFile(t, 16*mib)
	c, server := start(t, handofftest.Config{Reference: path, Regions: []handofftest.Region{{Size: 16 * mib}}})
	testkit.Serve(t, server, image)
	touched := make(chan error)
	go func() {
		_, err := c.Touch(handofftest.TouchSpec{Random: true, Threads: 2})
		touched <- err
	}()
	for first := uint64(0); first < c.Pages; first += 64 {
		if err := c.Balloon(handofftest.PageRange{First: first, Count: 16}); err != nil {
			t.Error(err)
		}
	}
	if err := <-touched; err != nil {
		t.Fatal(err)
	}
	check(t, c)
}

func TestHugePages(t *testing.T) {
	testkit.HugePages(t, 16)
	path, image := imageFile(t, 32*mib)
	c, server := start(t, handofftest.Config{
		Reference: path, PageSize: handofftest.HugePage,
		Regions: []handofftest.Region{{Size: 16 * mib}, {Size: 16 * mib, Offset: 16 * mib, Gap: 2 * mib}},
	})
	testkit.Serve(t, server, image)
	if r := touch(t, c, handofftest.TouchSpec{Fraction: 0.5, Random: true}); r.Count != 8 {
		t.Errorf("touched %d pages, want 8", r.Count)
	}
	if err := c.Write(3, 15); err != nil {
		t.Fatal(err)
	}
	if err := c.Balloon(handofftest.PageRange{First: 6, Count: 4}); err != nil {
		t.Fatal(err)
	}
	check(t, c)
	resident, err := c.Resident()
	if want := []handofftest.PageRange{{0, 16}}; err != nil || !slices.Equal(resident, want) {
		t.Errorf("resident are %v (%v), want %v", resident, err, want)
	}
}

func TestNoHugePages(t *testing.T) {
	_, err := handofftest.Start(context.Background(), handofftest.Config{
		Socket: filepath.Join(t.TempDir(), "none"), PageSize: handofftest.HugePage,
		Regions: []handofftest.Region{{Size: 1 << 42}},
	})
	if !errors.Is(err, handofftest.ErrNoHugePages) {
		t.Errorf("got %v, want ErrNoHugePages", err)
	}
}

func TestPoison(t *testing.T) {
	path, _ := imageFile(t, 1*mib)
	c, server := start(t, handofftest.Config{Reference: path, Regions: []handofftest.Region{{Size: 1 * mib}}})
	poisonAll(t, server)
	for _, via := range []handofftest.Via{handofftest.ViaCPU, handofftest.ViaPipe, handofftest.ViaProcess} {
		r := touch(t, c, handofftest.TouchSpec{Pages: []uint64{1, 2, 3}, Via: via})
		if r.Count != 3 || !slices.Equal(r.Poisoned, []uint64{1, 2, 3}) {
			t.Errorf("via %q: touched %d pages, poisoned %v", via, r.Count, r.Poisoned)
		}
	}
	if p, err := c.Poisoned(7); err != nil || !p.SIGBUS || !p.EFAULT {
		t.Errorf("page 7: %+v, %v", p, err)
	}
	if err := c.Write(9); err == nil {
		t.Error("a poisoned page was written")
	}
	r, err := c.Check(5, 6)
	if err != nil {
		t.Fatal(err)
	}
	if r.Different != 2 || r.First[0].Page != 5 || r.First[0].Saw != "SIGBUS" {
		t.Errorf("check found %+v", r)
	}
}

// A client that can't tell wrong content from right is worth nothing.
func TestCheckFindsWrongContent(t *testing.T) {
	path, image := imageFile(t, 1*mib)
	full := fullPages(image)
	flipped, zeroed, replaced, ballooned := full[0], full[1], full[2], full[3]
	image[flipped*4096+77] ^= 1
	clear(image[zeroed*4096:][:4096])
	copy(image[replaced*4096:][:4096], image[ballooned*4096:])
	c, server := start(t, handofftest.Config{Reference: path, Regions: []handofftest.Region{{Size: 1 * mib}}})
	ignoreRemovals(t, server, image)
	if err := c.Balloon(handofftest.PageRange{First: ballooned, Count: 1}); err != nil {
		t.Fatal(err)
	}
	r, err := c.Check()
	if err != nil {
		t.Fatal(err)
	}
	if r.Err() == nil || r.Different != 4 || r.Checked != c.Pages || len(r.First) != 4 {
		t.Fatalf("check found %+v", r)
	}
	for i, want := range []struct {
		page      uint64
		want, saw string
	}{
		{flipped, "image", ""}, {zeroed, "image", "zeros"}, {replaced, "image", ""}, {ballooned, "zeros", "image"},
	} {
		got := r.First[i]
		if got.Page != want.page || got.Want != want.want || want.saw != "" && got.Saw != want.saw {
			t.Errorf("got %v, want page %d, %s instead of %s", got, want.page, want.saw, want.want)
		}
	}
	if r.First[0].At != 77 {
		t.Errorf("got %v, want byte 77", r.First[0])
	}
}

func TestKilledHalfWay(t *testing.T) {
	path, _ := imageFile(t, 1*mib)
	c, server := start(t, handofftest.Config{Reference: path, Regions: []handofftest.Region{{Size: 1 * mib}}})
	touched := make(chan error)
	go func() {
		_, err := c.Touch(handofftest.TouchSpec{Threads: 3})
		touched <- err
	}()
	testkit.Await(t, server.UFFD.Int(), "a fault")
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-touched; !errors.Is(err, handofftest.ErrGone) {
		t.Errorf("touch: got %v, want ErrGone", err)
	}
	if c.Wait() == nil {
		t.Error("a killed client exited with success")
	}
	if _, err := c.Resident(); !errors.Is(err, handofftest.ErrGone) {
		t.Errorf("resident: got %v, want ErrGone", err)
	}
}

func TestExitWhileThreadsWait(t *testing.T) {
	c, server := start(t, handofftest.Config{Regions: []handofftest.Region{{Size: 1 * mib}}})
	touched := make(chan error)
	for _, via := range []handofftest.Via{handofftest.ViaCPU, handofftest.ViaPipe, handofftest.ViaProcess} {
		go func() {
			_, err := c.Touch(handofftest.TouchSpec{Threads: 2, Via: via})
			touched <- err
		}()
	}
	testkit.Await(t, server.UFFD.Int(), "a fault")
	if err := c.Exit(); err != nil {
		t.Errorf("exit: %v", err)
	}
	for range 3 {
		if err := <-touched; !errors.Is(err, handofftest.ErrGone) {
			t.Errorf("touch: got %v, want ErrGone", err)
		}
	}
}

func TestContextKillsAWaitingClient(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	path := filepath.Join(t.TempDir(), "nobody")
	if _, err := handofftest.Start(ctx, handofftest.Config{Socket: path, Regions: []handofftest.Region{{Size: 4096}}}); err == nil {
		t.Error("a client started without a server")
	}
	cancel()
	if _, err := handofftest.Start(ctx, handofftest.Config{Socket: path, Regions: []handofftest.Region{{Size: 4096}}}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestGuest(t *testing.T) {
	testkit.HugePages(t, 4)
	path, image := imageFile(t, 64*mib)
	for _, test := range []struct {
		name     string
		pageSize uint64
		stride   uint64
		regions  []handofftest.Region
	}{
		{"64 MiB in two regions, strides", 0, 4097, []handofftest.Region{{Size: 16 * mib, Offset: 48 * mib}, {Size: 48 * mib, Gap: mib}}},
		{"in order", 0, 0, []handofftest.Region{{Size: 4 * mib, Offset: 60 * mib}}},
		{"huge pages", handofftest.HugePage, 1025, []handofftest.Region{{Size: 8 * mib}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, server := start(t, handofftest.Config{Reference: path, PageSize: test.pageSize, Regions: test.regions})
			testkit.Serve(t, server, image)
			if err := c.Balloon(handofftest.PageRange{First: 1, Count: c.Pages / 4}); err != nil {
				t.Fatal(err)
			}
			r := runGuest(t, c, handofftest.GuestSpec{Stride: test.stride})
			t.Logf("%+v", r)
			if r.Pages != c.Pages*c.PageSize/4096 || r.Sum != r.Want {
				t.Errorf("the guest got %#x from %d pages, want %#x", r.Sum, r.Pages, r.Want)
			}
			resident, err := c.Resident()
			if want := []handofftest.PageRange{{0, c.Pages}}; err != nil || !slices.Equal(resident, want) {
				t.Errorf("resident are %v (%v), want all: %v", resident, err, want)
			}
			check(t, c)
		})
	}
}

func runGuest(t *testing.T, c *handofftest.Client, spec handofftest.GuestSpec) *handofftest.GuestResult {
	t.Helper()
	r, err := c.RunGuest(spec)
	if errors.Is(err, handofftest.ErrNoKVM) {
		testkit.Skip(t, err.Error(), testkit.HasKVM())
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What exactly the guest meets depends on the kernel. It must not be content.
func TestGuestOnPoison(t *testing.T) {
	path, _ := imageFile(t, 1*mib)
	c, server := start(t, handofftest.Config{Reference: path, Regions: []handofftest.Region{{Size: 1 * mib}}})
	poisonAll(t, server)
	r, err := c.RunGuest(handofftest.GuestSpec{})
	if errors.Is(err, handofftest.ErrNoKVM) {
		testkit.Skip(t, err.Error(), testkit.HasKVM())
	}
	if err == nil {
		t.Errorf("the guest ran to its end: %+v", r)
	}
	t.Log(err)
}

func TestGuestSumFindsWrongContent(t *testing.T) {
	path, image := imageFile(t, 4*mib)
	at := slices.IndexFunc(image, func(b byte) bool { return b != 0 }) / 4096 * 4096
	image[at] ^= 1
	c, server := start(t, handofftest.Config{Reference: path, Regions: []handofftest.Region{{Size: 4 * mib}}})
	testkit.Serve(t, server, image)
	r := runGuest(t, c, handofftest.GuestSpec{})
	if r.Sum == r.Want {
		t.Error("the guest did not notice a wrong byte")
	}
}
