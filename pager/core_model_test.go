package pager

import (
	"testing"

	"pgregory.net/rapid"
)

// modelBase is where the modelled client's memory begins.
const modelBase = 0x7f0000000000

// moves are drawn from, so their weights are how often they stand here.
var moves = []op{
	opLoad, opLoad, opLoad, opStore, opStore, opRemove, opRemove, opSignal, opSplit, opRun, opRun, opRun,
	opRead, opRead, opRead, opApply, opApply, opApply, opNext, opNext, opNext, opNext, opIssue, opIssue, opIssue, opIssue,
	opComplete, opComplete, opComplete, opComplete, opFetched, opFetched, opTime,
}

func drawSchedule(t *rapid.T) []step {
	number := rapid.IntRange(0, 63)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{rapid.SampledFrom(moves).Draw(t, "op"), number.Draw(t, "a"), number.Draw(t, "b"), number.Draw(t, "c")}
	}), 1, 300).Draw(t, "schedule")
}

// TestPromise runs the core against the model of the kernel under random
// schedules. A failing seed is kept below testdata and tried first from then on.
func TestPromise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		schedule := drawSchedule(t)
		m := newModel(modelBase, clientVMAs(), clientThreads, false)
		x := newExec(modelBase, m, m)
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
