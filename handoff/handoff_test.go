package handoff_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultline/handoff"
	"faultline/handoff/firecracker"
	"faultline/handoff/handofftest"
	"faultline/internal/snapshot"
	"faultline/internal/testkit"
	"faultline/uffd"
)

func TestMain(m *testing.M) {
	handofftest.Main()
	testkit.Main(m)
}

const mib = 1 << 20

func TestCheckRegions(t *testing.T) {
	const p = 4096
	ok := handoff.Region{Address: 16 * p, Size: 4 * p, Offset: p, PageSize: p}
	with := func(change func(r *handoff.Region)) []handoff.Region {
		r := ok
		change(&r)
		return []handoff.Region{r}
	}
	for _, test := range []struct {
		name    string
		regions []handoff.Region
		image   uint64
		want    string // a part of the error, "" for none
	}{
		{"fits exactly", []handoff.Region{ok}, 5 * p, ""},
		{"one byte short", []handoff.Region{ok}, 5*p - 1, "behind the end"},
		{"neighbours", []handoff.Region{ok, {Address: 20 * p, Size: p, PageSize: p}, {Address: 15 * p, Size: p, PageSize: p}}, 6 * p, ""},
		{"more than there is", []handoff.Region{ok, {Address: 20 * p, Size: 2 * p, PageSize: p}}, 5 * p, "larger than the image"},
		{"overlap", []handoff.Region{{Address: 19 * p, Size: p, PageSize: p}, ok}, 5 * p, "overlap"},
		{"the same twice", []handoff.Region{ok, ok}, 5 * p, "overlap"},
		{"nested", []handoff.Region{ok, {Address: 17 * p, Size: p, PageSize: p}}, 5 * p, "overlap"},
		{"none", nil, 5 * p, "none"},
		{"empty", with(func(r *handoff.Region) { r.Size = 0 }), 5 * p, "empty"},
		{"address", with(func(r *handoff.Region) { r.Address++ }), 5 * p, "multiples"},
		{"size", with(func(r *handoff.Region) { r.Size-- }), 5 * p, "multiples"},
		{"offset", with(func(r *handoff.Region) { r.Offset-- }), 5 * p, "multiple of 4096"},
		{"page size", with(func(r *handoff.Region) { r.PageSize = 8192 }), 5 * p, "page size"},
		{"huge pages misaligned", with(func(r *handoff.Region) { r.PageSize = 2 * mib }), 5 * p, "multiples"},
		{"huge pages", []handoff.Region{{Address: 4 * mib, Size: 2 * mib, Offset: p, PageSize: 2 * mib}}, 4 * mib, ""},
		{"address space ends", with(func(r *handoff.Region) { r.Address = math.MaxUint64 - p + 1 }), 5 * p, "address space"},
		{"kernel's half", with(func(r *handoff.Region) { r.Address = 1<<63 - p }), 5 * p, "address space"},
		{"offset overflows", with(func(r *handoff.Region) { r.Offset = math.MaxUint64 - p + 1 }), math.MaxUint64, "behind the end"},
	} {
		err := handoff.CheckRegions(test.regions, test.image)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (!errors.Is(err, handoff.ErrBadRegions) || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

// A real client, a real handshake, and the simplest of servers.
func TestFirecracker(t *testing.T) {
	const size = 8 * mib
	path, image := imageFile(t, size)
	for _, test := range []struct {
		name   string
		config handofftest.Config
	}{
		{"1.1", handofftest.Config{Version: handofftest.V1_1, NoFeatures: true}},
		{"1.7", handofftest.Config{Version: handofftest.V1_7}},
		{"1.12", handofftest.Config{Version: handofftest.V1_12}},
		{"two regions with a gap", handofftest.Config{Regions: []handofftest.Region{
			{Size: 2 * mib}, {Size: size - 2*mib, Offset: 2 * mib, Gap: 64 * mib},
		}}},
		{"1.7, huge pages", handofftest.Config{Version: handofftest.V1_7, PageSize: handofftest.HugePage}},
		{"1.12, huge pages", handofftest.Config{PageSize: handofftest.HugePage}},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := test.config
			config.Reference = path
			if config.Regions == nil {
				config.Regions = []handofftest.Region{{Size: size}}
			}
			if config.PageSize != 0 {
				testkit.HugePages(t, size/handofftest.HugePage)
			}
			c, server := connect(t, config)
			if err := handoff.CheckRegions(server.Regions, size); err != nil {
				t.Fatal(err)
			}
			testkit.Serve(t, server, image)
			if _, err := c.Touch(handofftest.TouchSpec{Fraction: 0.5, Random: true, Threads: 2}); err != nil {
				t.Fatal(err)
			}
			if !config.NoFeatures {
				if err := c.Balloon(handofftest.PageRange{First: 0, Count: c.Pages / 4}); err != nil {
					t.Fatal(err)
				}
			}
			r, err := c.Check()
			if err == nil {
				err = r.Err()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClientDiesHalfWay(t *testing.T) {
	path, _ := imageFile(t, mib)
	c, server := connect(t, handofftest.Config{Reference: path, Regions: []handofftest.Region{{Size: mib}}})
	touched := make(chan error)
	go func() {
		_, err := c.Touch(handofftest.TouchSpec{})
		touched <- err
	}()
	testkit.Await(t, server.UFFD.Int(), "a fault")
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	testkit.Await(t, server.PidFD, "the client's end")
	if err := <-touched; !errors.Is(err, handofftest.ErrGone) {
		t.Errorf("touch: %v", err)
	}
	c.Wait()
	r := server.Regions[0]
	if _, err := server.UFFD.Copy(r.Address, make([]byte, 4096), 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("copy to the dead: got %v, want ESRCH", err)
	}
}

func TestClientCloseTwice(t *testing.T) {
	fd, err := uffd.Open(uffd.Options{UserModeOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &handoff.Client{UFFD: fd, PidFD: pidfd}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// connect starts a client and receives it, and ends both with the test.
func connect(t *testing.T, config handofftest.Config) (*handofftest.Client, *handoff.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	config.Socket = filepath.Join(t.TempDir(), "s")
	l, err := firecracker.Listen(config.Socket, firecracker.Options{Refused: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := handofftest.Start(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Kill()
		c.Wait()
		server.Close()
	})
	if server.PID != c.PID {
		t.Errorf("process %d was received, want %d", server.PID, c.PID)
	}
	return c, server
}

func imageFile(t *testing.T, size int64) (path string, image []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "memory")
	if err := snapshot.WriteFile(path, size, 1); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if image, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_PRIVATE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(image) })
	return path, image
}
