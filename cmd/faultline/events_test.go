package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"faultline/internal/server"
)

// A stuckWriter takes nothing until it is let go.
type stuckWriter struct {
	bytes.Buffer
	letGo chan struct{}
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	<-w.letGo
	return w.Buffer.Write(p)
}

// Whoever reports an event answers faults, and must not wait for who reads it.
func TestEventsNeverBlock(t *testing.T) {
	const extra = 1000
	out := &stuckWriter{letGo: make(chan struct{})}
	l := newEventLog(&app{stdout: out, json: true}, nil)
	n := cap(l.queue) + extra
	for range n {
		l.notify(server.Event{Kind: server.Failed, Session: 1, PID: 2, Err: errors.New("no content")})
	}
	close(out.letGo)
	l.notify(server.Event{Kind: server.Stopping, Sessions: 1})
	l.close()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	dropped := 0
	for _, line := range lines {
		if strings.HasPrefix(line, `{"event":"dropped"`) {
			dropped++
		}
	}
	if dropped == 0 || len(lines) >= n {
		t.Errorf("%d lines of %d events, %d of them about dropped ones", len(lines), n, dropped)
	}
}
