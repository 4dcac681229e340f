package store_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"faultline/image"
	"faultline/store"
)

// Example keeps an image under a name.
func Example() {
	ctx := context.Background()
	tmp, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	layout, err := store.OpenLayout(filepath.Join(tmp, "images"))
	if err != nil {
		log.Fatal(err)
	}
	memory := bytes.Repeat([]byte("page"), 8*image.PageSize/4)
	manifest, err := layout.Pack(ctx, bytes.NewReader(memory), -1, image.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ref, err := store.Parse("team/app:warm")
	if err != nil {
		log.Fatal(err)
	}
	if err := layout.Tag(ctx, ref, manifest); err != nil {
		log.Fatal(err)
	}

	list, err := layout.List(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range list {
		fmt.Println(e.Ref, e.Manifest.Digest == manifest.Digest)
	}
	// Output: team/app:warm true
}
