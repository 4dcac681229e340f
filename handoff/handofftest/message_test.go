package handofftest_test

import (
	"encoding/json"
	"strings"
	"testing"

	"faultline/doc/vectors"
	"faultline/handoff"
	"faultline/handoff/handofftest"
)

// The templates must give the recorded messages, byte by byte.
func TestMessageIsTheRecordedOne(t *testing.T) {
	text, err := vectors.Firecracker.ReadFile("firecracker/accepted.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded []struct {
		Name, Message string
		Regions       []struct {
			Address, Size, Offset uint64
			PageSize              uint64 `json:"page_size"`
		}
	}
	if err := json.Unmarshal(text, &recorded); err != nil {
		t.Fatal(err)
	}
	seen := map[handofftest.Version]int{}
	for _, r := range recorded {
		version, _, ok := strings.Cut(r.Name, ", ")
		if !ok || !strings.HasPrefix(version, "1.") {
			continue
		}
		var regions []handoff.Region
		for _, region := range r.Regions {
			regions = append(regions, handoff.Region(region))
		}
		got, err := handofftest.Message(handofftest.Version(version), regions)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != r.Message {
			t.Errorf("%s:\n got %s\nwant %s", r.Name, got, r.Message)
		}
		seen[handofftest.Version(version)]++
	}
	for _, v := range []handofftest.Version{handofftest.V1_1, handofftest.V1_7, handofftest.V1_12} {
		if seen[v] < 2 {
			t.Errorf("only %d messages of %s are recorded", seen[v], v)
		}
	}
	if _, err := handofftest.Message("0.9", nil); err == nil {
		t.Error("an unknown version gave a message")
	}
}
