package main

import (
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"faultline/image"
)

// progress shows how far something is, on a terminal only. done removes the bar and
// must be called.
func (a *app) progress(what string) (report image.Progress, done func()) {
	if !isTerminal(a.stderr) || os.Getenv("TERM") == "dumb" {
		return nil, func() {}
	}
	container := mpb.New(mpb.WithOutput(a.stderr), mpb.WithWidth(40))
	bar := container.New(0, mpb.BarStyle(), mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(what+" ")),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.AverageSpeed(decor.SizeB1024(0), "  % .0f")))
	report = func(done, total int64) {
		bar.SetTotal(max(done, total), false)
		bar.SetCurrent(done)
	}
	return report, func() {
		bar.Abort(true)
		container.Wait()
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
