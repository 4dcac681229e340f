package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A report is everything that was found, as it is printed.
type report struct {
	Machine machine `json:"machine"`
	Lines   []line  `json:"lines"`
}

// A line is a figure over all rounds. Ratio is the median of the rounds' ratios,
// since what disturbs a round disturbs both sides of it.
type line struct {
	Group   string        `json:"group"`
	Subject string        `json:"subject"`
	Place   string        `json:"place"`
	Figure  string        `json:"figure"`
	Median  time.Duration `json:"medianNanoseconds"`
	Min     time.Duration `json:"minNanoseconds"`
	Max     time.Duration `json:"maxNanoseconds"`
	Against string        `json:"against,omitempty"`
	Ratio   float64       `json:"ratio,omitempty"`
	Faster  bool          `json:"ratioIsTimesFaster,omitempty"`
	Target  string        `json:"target,omitempty"`
}

func newReport(m machine, groups []*group) report {
	rep := report{Machine: m}
	for _, g := range groups {
		for _, r := range g.rows {
			rep.Lines = append(rep.Lines, r.line(g.title))
		}
	}
	return rep
}

func (r row) line(group string) line {
	var times []time.Duration
	var ratios []float64
	for i, got := range r.subject.results {
		t := r.figure(got)
		times = append(times, t)
		if r.against == nil {
			continue
		}
		ratio := float64(t) / float64(r.figure(r.against.results[i]))
		if r.faster {
			ratio = 1 / ratio
		}
		ratios = append(ratios, ratio)
	}
	l := line{
		Group: group, Subject: r.subject.name, Place: r.subject.place.name, Figure: r.what,
		Median: median(times), Min: slices.Min(times), Max: slices.Max(times), Faster: r.faster, Target: r.target,
	}
	if r.against != nil {
		l.Against, l.Ratio = r.against.name, median(ratios)
	}
	return l
}

// median is the lower of the two where there are two.
func median[T int64 | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}

// print writes the machine, and one table with a heading for each group.
func (rep report) print(w io.Writer) {
	rep.Machine.print(w)
	table := [][]string{{"", "", "", "median", "min … max", "ratio", "target", "against"}}
	group := ""
	for _, l := range rep.Lines {
		if l.Group != group {
			table = append(table, nil, []string{l.Group})
			group = l.Group
		}
		table = append(table, l.cells())
	}
	align(w, table)
}

func (l line) cells() []string {
	ratio := ""
	if l.Against != "" {
		ratio = fmt.Sprintf("%.2f", l.Ratio)
	}
	if l.Faster {
		ratio = fmt.Sprintf("%.1f × faster", l.Ratio)
	}
	return []string{"  " + l.Subject, l.Place, l.Figure, short(l.Median), short(l.Min) + " … " + short(l.Max), ratio, l.Target, l.Against}
}

// short writes three significant digits, in µs or ms.
func short(d time.Duration) string {
	value, unit := float64(d)/1e3, "µs"
	if d >= 10*time.Millisecond {
		value, unit = value/1e3, "ms"
	}
	digits := 2
	for limit := 10.0; digits > 0 && value >= limit; limit *= 10 {
		digits--
	}
	return fmt.Sprintf("%.*f %s", digits, value, unit)
}

// align pads all columns. A row of one cell is a heading and may be wider than its
// column.
func align(w io.Writer, table [][]string) {
	widths := make([]int, len(table[0]))
	for _, row := range table {
		for i, cell := range row {
			if len(row) > 1 {
				widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	for _, row := range table {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell + strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(cell), 0)+2))
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}
