package image_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"

	"faultline/image"
	"faultline/store"
)

// Example packs memory of 1 MiB of which one page is not zero, and reads it again.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	layout, err := store.OpenLayout(dir)
	if err != nil {
		log.Fatal(err)
	}

	memory := make([]byte, 1<<20)
	copy(memory[8*image.PageSize:], "hello")
	manifest, err := layout.Pack(ctx, bytes.NewReader(memory), -1, image.Options{})
	if err != nil {
		log.Fatal(err)
	}

	r, err := image.Open(ctx, layout, manifest)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	for off := int64(0); off < 10*image.PageSize; {
		n, zero, err := r.Extent(ctx, off)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(off, n, zero)
		off += n
	}
	p := make([]byte, 5)
	if err := r.ReadAt(ctx, p, 8*image.PageSize); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", p)
	// Output:
	// 0 32768 true
	// 32768 4096 false
	// 36864 1011712 true
	// hello
}
