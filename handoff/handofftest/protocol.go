package handofftest

import (
	"encoding/json"
	"errors"
)

// A program and its client process exchange JSON lines over a socket pair, which
// the client has as descriptor 3. A request is answered when it is done, whatever
// else is under way.

type request struct {
	ID  int
	Op  string
	Arg json.RawMessage
}

type reply struct {
	ID     int
	Error  string `json:",omitempty"`
	Code   string `json:",omitempty"` // names the sentinel in sentinels that Error wraps
	Result json.RawMessage
}

// sentinels are the errors that keep their identity on the way over.
var sentinels = map[string]error{"huge": ErrNoHugePages, "kvm": ErrNoKVM}

func (r *reply) setError(err error) {
	r.Error = err.Error()
	for code, sentinel := range sentinels {
		if errors.Is(err, sentinel) {
			r.Code = code
		}
	}
}

func (r *reply) error() error {
	if r.Error == "" {
		return nil
	}
	return &remoteError{text: r.Error, is: sentinels[r.Code]}
}

// A remoteError happened in the client process.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

// The operations.
const (
	opStart    = "start"
	opTouch    = "touch"
	opCheck    = "check"
	opBalloon  = "balloon"
	opPoisoned = "poisoned"
	opResident = "resident"
	opGuest    = "guest"
	opExit     = "exit"
)
