package main

import (
	"regexp"
	"time"
)

// A group is the measurements that answer one question.
type group struct {
	name     string
	title    string
	subjects []*subject
	rows     []row
}

// A row is a line of the table: a figure of a subject, and how it compares.
type row struct {
	subject *subject
	what    string // of the figures
	figure  func(result) time.Duration
	against *subject // or nil
	faster  bool     // the ratio says how many times faster, and not how much slower
	target  string   // or empty
}

// add makes a subject part of the group.
func (g *group) add(s subject) *subject {
	g.subjects = append(g.subjects, &s)
	return &s
}

func (r *rig) groups(match *regexp.Regexp) (groups []*group) {
	for _, g := range []*group{r.onePage(), r.touchAll(), r.restore(), r.busy()} {
		if match.MatchString(g.name) {
			groups = append(groups, g)
		}
	}
	return groups
}

// places are where a client and its handler can be, as far as the CPUs go.
func (r *rig) places() []place {
	places := []place{{"same core", r.cpus[0], r.cpus[0]}}
	if len(r.cpus) > 1 {
		places = append(places, place{"other core", r.cpus[0], r.cpus[1]})
	}
	return append(places, free)
}

var free = place{"anywhere", -1, -1}

// Which figures there are.
func p50(r result) time.Duration      { return r.P50 }
func p99(r result) time.Duration      { return r.P99 }
func touched(r result) time.Duration  { return r.Touched }
func resident(r result) time.Duration { return r.Resident }
