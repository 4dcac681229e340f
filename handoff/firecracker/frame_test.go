package firecracker

import "testing"

// frameEnd feeds message in pieces and gives how many bytes were needed, or -1.
func frameEnd(t *testing.T, message []byte, piece int) int {
	t.Helper()
	var f frame
	for at := 0; at < len(message); at += piece {
		if err := f.add(message[at:min(at+piece, len(message))]); err != nil {
			return -1
		}
		if f.complete {
			return min(at+piece, len(message))
		}
	}
	return -1
}

func TestFrameFindsTheEnd(t *testing.T) {
	for _, test := range []struct {
		message string
		end     int
	}{
		{`[]`, 2},
		{`[]x`, 2},
		{"\r\n\t [ ] ", 7},
		{`[{"a":[1,{"b":"]"}]}]`, 21},
		{`["]\"]","\\"]`, 13},
		{`["\\\"]"]`, 9},
		{`[`, -1},
		{`["]`, -1},
		{``, -1},
		{`{}`, -1},
		{`x[]`, -1},
		{`][]`, -1},
	} {
		if got := frameEnd(t, []byte(test.message), 1); got != test.end {
			t.Errorf("%s ends at %d, want %d", test.message, got, test.end)
		}
		for piece := 2; piece < 5; piece++ {
			if got := frameEnd(t, []byte(test.message), piece); (got < 0) != (test.end < 0) || got >= test.end+piece {
				t.Errorf("%s in pieces of %d ends at %d, want about %d", test.message, piece, got, test.end)
			}
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte(good), 3)
	f.Add([]byte(`["]\"]","\\"]`), 1)
	f.Fuzz(func(t *testing.T, message []byte, piece int) {
		one := frameEnd(t, message, 1)
		whole := frameEnd(t, message, max(1, len(message)))
		if (one < 0) != (whole < 0) {
			t.Errorf("byte by byte it ends at %d, at once at %d", one, whole)
		}
		if piece > 0 && piece < len(message) && (frameEnd(t, message, piece) < 0) != (one < 0) {
			t.Errorf("in pieces of %d it is different", piece)
		}
	})
}
