package pager

import (
	"flag"
	"testing"

	"pgregory.net/rapid"
)

// modelBase is where the modelled client's memory begins.
const modelBase = 0x7f0000000000

// moves are drawn from, so their weights are how often they stand here.
var moves = []op{
	opLoad, opLoad, opLoad, opLoad, opStore, opStore, opRemove, opRemove, opRemove, opSignal, opSplit,
	opReader, opReader, opReader, opHand, opHand, opHand, opHand, opHand, opFetched, opTime,
}

// drawSchedule draws a schedule, at the end of which some clients die and the
// handler goes on for a while.
func drawSchedule(t *rapid.T) []step {
	number := rapid.IntRange(0, 63)
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{rapid.SampledFrom(moves).Draw(t, "op"), number.Draw(t, "a"), number.Draw(t, "b"), number.Draw(t, "c")}
	}), 100, 600) // rapid's average is near the minimum
	schedule := steps.Draw(t, "schedule")
	if number.Draw(t, "death") < 8 {
		schedule = append(append(schedule, step{Op: opDie}), steps.Draw(t, "after death")...)
	}
	return schedule
}

// checks sets how many schedules are tried, unless the command line does.
func checks(t *testing.T, n string) {
	const name = "rapid.checks"
	old := flag.Lookup(name).Value.String()
	if old != flag.Lookup(name).DefValue {
		return
	}
	flag.Set(name, n)
	t.Cleanup(func() { flag.Set(name, old) })
}

// TestPromise runs the core against the model of the kernel under random
// schedules. A failing seed is kept below testdata and tried first from then on.
func TestPromise(t *testing.T) {
	checks(t, "2000")
	rapid.Check(t, func(t *rapid.T) {
		schedule := drawSchedule(t)
		m := newModel(modelBase, clientVMAs(), clientThreads, false)
		x := newTrial(modelBase, m, m, rapid.Bool().Draw(t, "prefetch"))
		for i, s := range schedule {
			if err := x.run(s); err != nil {
				t.Fatalf("step %d %v: %v", i, s, err)
			}
		}
		if err := x.finish(); err != nil {
			t.Fatalf("at the end: %v", err)
		}
	})
}
