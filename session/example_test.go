package session_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"faultline/handoff/firecracker"
	"faultline/handoff/handofftest"
	"faultline/image"
	"faultline/pager"
	"faultline/session"
	"faultline/store"
)

// Serve a client's memory from an image. A test client stands in for Firecracker.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "faultline")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	memory, img := packed(ctx, dir)
	defer img.Close()

	listener, err := firecracker.Listen(filepath.Join(dir, "socket"), firecracker.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	vm, err := handofftest.Start(ctx, handofftest.Config{
		Socket: listener.Addr(), Reference: memory, Regions: []handofftest.Region{{Size: 4 << 20}},
	})
	if err != nil {
		log.Fatal(err)
	}

	client, err := listener.Accept(ctx)
	if err != nil {
		log.Fatal(err)
	}
	pool := pager.NewPool(8) // or none, for one that all sessions of the process share
	defer pool.Close()
	s, err := session.Start(client, session.Options{Source: img, Pool: pool, OnError: func(err error) { log.Print(err) }})
	if err != nil {
		log.Fatal(err)
	}
	seen, err := vm.Check() // touches every page and compares it with the file
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(seen.Checked, "pages,", seen.Different, "wrong")
	vm.Exit()
	fmt.Println("session:", s.Wait())
	// Output:
	// 1024 pages, 0 wrong
	// session: <nil>
}

// packed makes a memory file and an image of it.
func packed(ctx context.Context, dir string) (path string, img *image.Reader) {
	path = filepath.Join(dir, "memory")
	content := make([]byte, 4<<20)
	for i := range content {
		content[i] = byte(i >> 10)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		log.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	layout, err := store.OpenLayout(filepath.Join(dir, "store"))
	if err != nil {
		log.Fatal(err)
	}
	manifest, err := layout.Pack(ctx, file, int64(len(content)), image.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if img, err = image.Open(ctx, layout, manifest); err != nil {
		log.Fatal(err)
	}
	return path, img
}
