package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"faultline/handoff/firecracker"
	"faultline/internal/server"
	"faultline/pager"
)

// An event is one line of serve --json. Sizes are in bytes. doc/cli.md says which
// fields come with which event.
type event struct {
	Event   string    `json:"event"`
	Time    time.Time `json:"time"`
	Image   string    `json:"image,omitempty"`
	Digest  string    `json:"digest,omitempty"`
	Size    int64     `json:"size,omitempty"`
	Socket  string    `json:"socket,omitempty"`
	Session int       `json:"session,omitempty"`
	PID     int       `json:"pid,omitempty"`
	Bytes   uint64    `json:"bytes,omitempty"`
	Seconds float64   `json:"seconds,omitempty"`
	Outcome string    `json:"outcome,omitempty"`
	Error   string    `json:"error,omitempty"`
	Count   int       `json:"count,omitempty"`
	Stats   *figures  `json:"stats,omitempty"`

	text string // for people
	out  bool   // on standard output even without --json
}

// figures are a session's, in JSON.
type figures struct {
	Faults        uint64 `json:"faults"`
	Duplicates    uint64 `json:"duplicates"`
	Removes       uint64 `json:"removes"`
	PagesCopied   uint64 `json:"pagesCopied"`
	PagesZeroed   uint64 `json:"pagesZeroed"`
	PagesPoisoned uint64 `json:"pagesPoisoned"`
	PagesAbsent   int    `json:"pagesAbsent"`
	Fetches       uint64 `json:"fetches"`
	FailedFetches uint64 `json:"failedFetches"`
	// Latency is from reading a fault to its answer, by what the answer was.
	Latency map[string]quantiles `json:"latency"`
}

type quantiles struct {
	Count uint64  `json:"count"`
	Mean  float64 `json:"meanSeconds"`
	P50   float64 `json:"p50Seconds"`
	P99   float64 `json:"p99Seconds"`
}

func newFigures(s *pager.Stats) *figures {
	if s == nil {
		return nil
	}
	f := &figures{
		Faults: s.Faults, Duplicates: s.Duplicates, Removes: s.Removes,
		PagesCopied: s.PagesCopied, PagesZeroed: s.PagesZeroed, PagesPoisoned: s.PagesPoisoned, PagesAbsent: s.Absent,
		Fetches: s.Fetched, FailedFetches: s.FailedFetches, Latency: map[string]quantiles{},
	}
	for name, h := range map[string]*pager.Histogram{"content": &s.Content, "zero": &s.Zero, "removed": &s.Removed, "failed": &s.Failed} {
		if h.Count > 0 {
			f.Latency[name] = quantiles{
				h.Count, h.Sum.Seconds() / float64(h.Count), h.Quantile(0.5).Seconds(), h.Quantile(0.99).Seconds(),
			}
		}
	}
	return f
}

// An eventLog writes events from a goroutine of its own. Whoever reports one answers
// faults, and must not wait for the reader of our output: what does not fit in the
// queue is dropped and counted.
type eventLog struct {
	app     *app
	image   *openImage
	queue   chan event
	dropped atomic.Int64
	done    chan struct{}
}

func newEventLog(a *app, opened *openImage) *eventLog {
	l := &eventLog{app: a, image: opened, queue: make(chan event, 4096), done: make(chan struct{})}
	go l.writeAll()
	return l
}

// close writes what is queued. Nothing may be reported any more.
func (l *eventLog) close() {
	close(l.queue)
	<-l.done
}

func (l *eventLog) report(e event) {
	e.Time = time.Now()
	select {
	case l.queue <- e:
	default:
		l.dropped.Add(1)
	}
}

func (l *eventLog) writeAll() {
	defer close(l.done)
	for e := range l.queue {
		if n := l.dropped.Swap(0); n > 0 {
			l.write(event{Event: "dropped", Time: time.Now(), Count: int(n), text: fmt.Sprintf("%d events were dropped: nobody read them", n)})
		}
		l.write(e)
	}
}

// write can do nothing about an error: clients matter more than who watches.
func (l *eventLog) write(e event) {
	switch {
	case l.app.json:
		json.NewEncoder(l.app.stdout).Encode(e)
	case e.out:
		fmt.Fprintln(l.app.stdout, e.text)
	default:
		l.app.note("%s", e.text)
	}
}

func (l *eventLog) listening(socket string) {
	l.report(event{
		Event: "listening", Image: l.image.ref.String(), Digest: l.image.manifest.Digest.String(), Size: l.image.Size(), Socket: socket,
		text: fmt.Sprintf("serving %s (%s) at %s", l.image.ref, formatSize(l.image.Size()), socket), out: true,
	})
}

// refused tells of a handshake that failed.
func (l *eventLog) refused(err error) {
	e := event{Event: "refused", Error: oneLine(err), text: "refused a client: " + oneLine(err)}
	var handshake *firecracker.HandshakeError
	if errors.As(err, &handshake) {
		e.PID = handshake.PID
	}
	l.report(e)
}

// notify tells of what happens to sessions.
func (l *eventLog) notify(s server.Event) {
	e := event{
		Event: string(s.Kind), Session: s.Session, PID: s.PID, Bytes: s.Bytes, Seconds: s.After.Seconds(),
		Outcome: string(s.Outcome), Count: s.Sessions, Stats: newFigures(s.Stats),
	}
	if s.Err != nil {
		e.Error = oneLine(s.Err)
	}
	e.text = sentence(s)
	l.report(e)
}

// sentence is an event for people.
func sentence(s server.Event) string {
	if s.Kind == server.Stopping {
		return fmt.Sprintf("stopping: filling %s", plural(s.Sessions, "client"))
	}
	text := fmt.Sprintf("session %d, process %d: %s", s.Session, s.PID, s.Kind)
	switch s.Kind {
	case server.Started:
		return text + ", " + formatSize(int64(s.Bytes))
	case server.Failed:
		return text + ": " + oneLine(s.Err)
	case server.Ended:
		text += ", " + string(s.Outcome)
	}
	text += " after " + formatDuration(s.After)
	if s.Stats != nil {
		text += fmt.Sprintf(": %d faults, %d pages copied, %d zeroed", s.Stats.Faults, s.Stats.PagesCopied, s.Stats.PagesZeroed)
		if n := s.Stats.PagesPoisoned; n > 0 {
			text += fmt.Sprintf(", %d poisoned", n)
		}
		if h := s.Stats.Content; h.Count > 0 {
			text += fmt.Sprintf("; latency p50 %s, p99 %s", formatDuration(h.Quantile(0.5)), formatDuration(h.Quantile(0.99)))
		}
	}
	if s.Err != nil {
		text += ": " + oneLine(s.Err)
	}
	return text
}
