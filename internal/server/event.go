package server

import (
	"time"

	"faultline/pager"
)

// Kind says what an Event tells.
type Kind string

// What can happen.
const (
	Started  Kind = "started"  // a session began
	Filled   Kind = "filled"   // nothing is missing in a client any more
	Failed   Kind = "failed"   // content could not be had
	Ended    Kind = "ended"    // a session is over
	Stopping Kind = "stopping" // no more clients are accepted, those left are being filled
)

// Outcome says how a session ended.
type Outcome string

// How sessions end.
const (
	Exited Outcome = "exited" // the client went by itself
	Left   Outcome = "left"   // the client was filled and lives on by itself
	Killed Outcome = "killed" // the client had to be ended, Event.Err says why
)

// An Event is something that happened.
type Event struct {
	Kind    Kind
	Session int           // counted from 1; not for Stopping
	PID     int           // the client's
	Bytes   uint64        // of the client's memory; for Started, Filled and Ended
	After   time.Duration // since the session began; for Filled and Ended
	Stats   *pager.Stats  // for Filled, and for Ended if there was a session
	Outcome Outcome       // for Ended
	Err     error         // for Failed, and for Ended if something went wrong

	Sessions int // how many are being filled; for Stopping
}
