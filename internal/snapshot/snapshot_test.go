package snapshot

import (
	"bytes"
	"compress/flate"
	"io"
	"testing"
)

func TestSnapshotIsLikeAGuest(t *testing.T) {
	const size = 64 << 20
	var b bytes.Buffer
	if err := Write(&b, size, 7); err != nil || b.Len() != size {
		t.Fatalf("%d bytes: %v", b.Len(), err)
	}
	zero, copies, soft, hard := 0, 0, 0, 0
	seen := map[string]bool{}
	for at := 0; at < size; at += pageSize {
		page := b.Bytes()[at:][:pageSize]
		switch {
		case bytes.Equal(page, make([]byte, pageSize)):
			zero++
		case seen[string(page)]:
			copies++
		case len(seen)%16 == 0 && !compresses(page):
			hard += 16
		case len(seen)%16 == 0:
			soft += 16
		}
		seen[string(page)] = true
	}
	percent := func(n int) float64 { return 100 * float64(n) / (size / pageSize) }
	t.Logf("zero %.1f%%, copies %.1f%%, compressible %.1f%%, random %.1f%%", percent(zero), percent(copies), percent(soft), percent(hard))
	for _, share := range []struct {
		name      string
		got, want float64
	}{
		{"zero", percent(zero), 45}, {"copies", percent(copies), 15}, {"compressible", percent(soft), 30}, {"random", percent(hard), 10},
	} {
		if share.got < share.want-6 || share.got > share.want+6 {
			t.Errorf("%s: %.1f%%, want about %.0f%%", share.name, share.got, share.want)
		}
	}
}

// compresses to less than half.
func compresses(page []byte) bool {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestSpeed)
	w.Write(page)
	w.Close()
	return b.Len() < len(page)/2
}

func TestSnapshotIsDetermined(t *testing.T) {
	var a, b, c bytes.Buffer
	Write(&a, 8<<20, 1)
	Write(&b, 8<<20, 1)
	Write(&c, 8<<20, 2)
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the same seed gave different snapshots")
	}
	if bytes.Equal(a.Bytes(), c.Bytes()) {
		t.Error("different seeds gave the same snapshot")
	}
	if err := Write(io.Discard, 4097, 1); err == nil {
		t.Error("half a page was written")
	}
}

func BenchmarkSnapshot(b *testing.B) {
	b.SetBytes(64 << 20)
	for b.Loop() {
		Write(io.Discard, 64<<20, 1)
	}
}
