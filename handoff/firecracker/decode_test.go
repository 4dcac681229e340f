package firecracker

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"faultline/doc/vectors"
	"faultline/handoff"
)

type accepted struct {
	Name, Message string
	Regions       []struct {
		Address, Size, Offset uint64
		PageSize              uint64 `json:"page_size"`
	}
}

type refused struct{ Name, Message, Why string }

func load[T any](t testing.TB, name string) (list []T) {
	t.Helper()
	text, err := vectors.Firecracker.ReadFile("firecracker/" + name)
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil || len(list) == 0 {
		t.Fatalf("%s has %d examples: %v", name, len(list), err)
	}
	return list
}

func TestDecodeAccepts(t *testing.T) {
	for _, v := range load[accepted](t, "accepted.json") {
		got, err := Decode([]byte(v.Message))
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		var want []handoff.Region
		for _, r := range v.Regions {
			want = append(want, handoff.Region(r))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", v.Name, got, want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, v := range load[refused](t, "refused.json") {
		got, err := Decode([]byte(v.Message))
		if !errors.Is(err, ErrBadMessage) && !errors.Is(err, handoff.ErrBadRegions) {
			t.Errorf("%s: got %v, %v; want it refused: %s", v.Name, got, err, v.Why)
		}
		t.Logf("%s: %v", v.Name, err)
	}
}

func TestDecodeBounds(t *testing.T) {
	message := func(regions int) []byte {
		var parts []string
		for i := range regions {
			parts = append(parts, fmt.Sprintf(`{"base_host_virt_addr":%d,"size":4096,"offset":0}`, (i+1)*4096))
		}
		return []byte("[" + strings.Join(parts, ",") + "]")
	}
	if r, err := Decode(message(MaxRegions)); err != nil || len(r) != MaxRegions {
		t.Errorf("the most regions: %d, %v", len(r), err)
	}
	if _, err := Decode(message(MaxRegions + 1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one region too many: %v", err)
	}
	padded := append([]byte(good), make([]byte, MaxMessage-len(good))...)
	for i := len(good); i < len(padded); i++ {
		padded[i] = ' '
	}
	if _, err := Decode(padded); err != nil {
		t.Errorf("the longest message: %v", err)
	}
	if _, err := Decode(append(padded, ' ')); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one byte too many: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range load[accepted](f, "accepted.json") {
		f.Add([]byte(v.Message))
	}
	for _, v := range load[refused](f, "refused.json") {
		f.Add([]byte(v.Message))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		regions, err := Decode(message)
		if err != nil {
			if regions != nil || !errors.Is(err, ErrBadMessage) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, handoff.ErrBadRegions) {
				t.Errorf("got %v with error %v", regions, err)
			}
			return
		}
		if err := handoff.CheckRegions(regions, math.MaxInt64); err != nil {
			t.Error(err)
		}
		// The other parser of the same library must see the same regions.
		var other []struct {
			Address  *uint64 `json:"base_host_virt_addr"`
			Size     *uint64
			Offset   *uint64
			PageSize *uint64 `json:"page_size"`
			Old      *uint64 `json:"page_size_kib"`
		}
		if err := json.Unmarshal(message, &other); err != nil || len(other) != len(regions) {
			t.Fatalf("accepted what is not the JSON of %d regions: %v", len(regions), err)
		}
		if end := frameEnd(t, message, 1); len(strings.TrimSpace(string(message[end:]))) != 0 {
			t.Errorf("the frame ends at %d of %d", end, len(message))
		}
	})
}
