package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"faultline/image"
)

// childRole makes this test program another process that uses a store. See child.
const childRole = "STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		if err := child(role, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// child tags many images, or dies with a blob half written.
func child(role, dir string) error {
	ctx := context.Background()
	l, err := OpenLayout(dir)
	if err != nil {
		return err
	}
	if role == "die" {
		return dieStaging(ctx, l)
	}
	return tagMany(ctx, l, role)
}

const tagsEach = 20

// dieStaging ends the process with one blob committed and not published, and another
// half written.
func dieStaging(ctx context.Context, l *Layout) error {
	b, err := l.Begin()
	if err != nil {
		return err
	}
	for range 2 {
		w, err := b.Create(ctx)
		if err != nil {
			return err
		}
		if _, err := w.Write(make([]byte, 5000)); err != nil {
			return err
		}
		if len(b.staged) == 1 {
			os.Exit(0)
		}
		if _, err := w.Commit(ctx, "text/plain"); err != nil {
			return err
		}
	}
	return nil
}

// tagMany packs one image and gives it many names.
func tagMany(ctx context.Context, l *Layout, who string) error {
	d, err := l.Pack(ctx, bytes.NewReader(make([]byte, image.PageSize)), -1, image.Options{CreatedBy: who})
	if err != nil {
		return err
	}
	for i := range tagsEach {
		if err := l.Tag(ctx, Ref{Name: who, Tag: fmt.Sprint(i)}, d); err != nil {
			return err
		}
	}
	return nil
}

func startChild(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, dir)
	cmd.Env = append(os.Environ(), childRole+"="+role)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func newLayout(t *testing.T) *Layout {
	t.Helper()
	l, err := OpenLayout(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustParse(t *testing.T, s string) Ref {
	t.Helper()
	r, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// content is some pages that shrink, some that do not, and zeros.
func content(pages int) []byte {
	p := make([]byte, pages*image.PageSize)
	rnd := rand.NewChaCha8([32]byte{1})
	for i := range pages {
		page := p[i*image.PageSize : (i+1)*image.PageSize]
		switch i / 8 % 3 {
		case 0:
			copy(page, strings.Repeat("faultline ", 400))
		case 1:
			rnd.Read(page)
		}
	}
	return p
}

// begin starts a batch that is aborted at the end of the test.
func begin(t *testing.T, l *Layout) *Batch {
	t.Helper()
	b, err := l.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Abort(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// packTagged packs content into l under a name.
func packTagged(t *testing.T, l *Layout, name string, content []byte) {
	t.Helper()
	d, err := l.Pack(t.Context(), bytes.NewReader(content), -1, image.Options{
		PackSize: 200 << 10, FrameSize: 32 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Tag(t.Context(), mustParse(t, name), d); err != nil {
		t.Fatal(err)
	}
}

// readTagged gives all of the image with that name.
func readTagged(ctx context.Context, l *Layout, ref Ref) ([]byte, error) {
	d, err := l.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	r, err := image.Open(ctx, l, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p := make([]byte, r.Size())
	return p, r.ReadAt(ctx, p, 0)
}

// files gives the store's files with their sizes, and checks that none but its owner may read them.
func files(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(fileMode)
		if e.IsDir() {
			want = fs.ModeDir | dirMode
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
		if !e.IsDir() {
			rel, _ := filepath.Rel(dir, name)
			all[rel] = info.Size()
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

// staged gives the names of blobs that are being written.
func staged(t *testing.T, l *Layout) (names []string) {
	t.Helper()
	for name := range files(t, l.dir) {
		if filepath.Dir(name) == stageDir && filepath.Base(name) != lockName {
			names = append(names, name)
		}
	}
	return names
}
