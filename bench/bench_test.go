package main

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"faultline/internal/testkit"
)

func TestMain(m *testing.M) {
	runHandler()
	testkit.Main(m)
}

// TestEverything measures everything once with little memory. The client compares
// every page; the figures mean nothing at this size.
func TestEverything(t *testing.T) {
	if os.Geteuid() != 0 {
		testkit.Skip(t, "must run as root", false)
	}
	rig, err := newRig(t.Context(), options{rounds: 1, size: 4, profile: t.TempDir()})
	if errors.Is(err, errNoCompiler) {
		testkit.Skip(t, err.Error(), false)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer rig.close()
	groups := rig.groups(regexp.MustCompile(""))
	if err := rig.run(t.Context(), groups); err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		for _, s := range g.subjects {
			if want := int(min(rig.size<<20, smallest) / 4096); len(s.results) != 1 || s.results[0].Checked != want {
				t.Errorf("%s: %s: got %+v, want one result of %d pages checked", g.name, s.name, s.results, want)
			}
		}
	}
	rep := newReport(rig.machine(), groups)
	for _, l := range rep.Lines {
		if l.Median <= 0 || l.Against != "" && l.Ratio <= 0 {
			t.Errorf("not measured: %+v", l)
		}
	}
	var table strings.Builder
	rep.print(&table)
	t.Log("\n" + table.String())
	if _, err := json.Marshal(rep); err != nil {
		t.Error(err)
	}
}

func TestRatios(t *testing.T) {
	base := &subject{name: "base", results: []result{{P50: 10}, {P50: 100}, {P50: 20}}}
	ours := &subject{name: "ours", results: []result{{P50: 20}, {P50: 50}, {P50: 30}}}
	r := row{subject: ours, what: "p50", figure: p50, against: base}
	if l := r.line("g"); l.Median != 30 || l.Min != 20 || l.Max != 50 || l.Ratio != 1.5 {
		t.Errorf("got %+v, want a median of 30 in 20…50 and, as the median of 2, 0.5 and 1.5, 1.5", l)
	}
	r.faster = true
	if l := r.line("g"); l.Ratio != 1/1.5 {
		t.Errorf("faster: got %v, want %v", l.Ratio, 1/1.5)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		940: "0.94 µs", 3210: "3.21 µs", 68_700: "68.7 µs", 4_487_000: "4487 µs", 17_800_000: "17.8 ms", 8_078_000_000: "8078 ms",
	} {
		if got := short(d); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
	}
}
