package handofftest_test

import (
	"testing"

	"faultline/handoff"
	"faultline/internal/testkit"
	"faultline/uffd"
)

// poisonAll makes every page of the client one that can't be had.
func poisonAll(t *testing.T, server *handoff.Client) {
	t.Helper()
	for _, r := range server.Regions {
		if n, err := server.UFFD.Poison(uffd.Range{Start: r.Address, Len: r.Size}, 0); err != nil || n != int64(r.Size) {
			t.Fatalf("poisoned %d bytes of %d: %v", n, r.Size, err)
		}
	}
}

// ignoreRemovals serves the client with a server that forgets what was removed,
// by hiding the event from it.
func ignoreRemovals(t *testing.T, server *handoff.Client, image []byte) {
	t.Helper()
	read := make(chan error)
	go func() {
		n, err := 0, error(nil)
		for n == 0 && err == nil {
			n, err = server.UFFD.Read(make([]uffd.Message, 1))
		}
		if err == nil {
			testkit.Serve(t, server, image)
		}
		read <- err
	}()
	t.Cleanup(func() {
		if err := <-read; err != nil {
			t.Error(err)
		}
	})
}

// fullPages are pages that are not all zeros and not the same as an earlier one.
func fullPages(image []byte) (pages []uint64) {
	seen := map[string]bool{string(make([]byte, 4096)): true}
	for n := range uint64(len(image) / 4096) {
		page := string(image[n*4096:][:4096])
		if !seen[page] {
			pages = append(pages, n)
		}
		seen[page] = true
	}
	return pages
}
