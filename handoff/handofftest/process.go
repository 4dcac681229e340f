package handofftest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
)

// Main runs the client and does not return, if this process was started as one.
// Call it first thing in TestMain or main: before it, nothing may start threads
// that allocate for ever.
func Main() {
	if os.Getenv(environment) == "" {
		return
	}
	os.Unsetenv(environment)
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A process is the client, as it sees itself.
type process struct {
	memory *memory
	send   sync.Mutex
	conn   net.Conn
}

// serve does what comes over descriptor 3 until the other end is closed, even if
// threads still wait in faults.
func serve() error {
	file := os.NewFile(3, "parent")
	conn, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("client: descriptor 3: %w", err)
	}
	file.Close()
	p := &process{conn: conn}
	decoder := json.NewDecoder(bufio.NewReaderSize(conn, 1<<16))
	for {
		var r request
		if decoder.Decode(&r) != nil || r.Op == opExit {
			return nil
		}
		if r.Op == opStart {
			p.answer(r) // before anything else
		} else {
			go p.answer(r)
		}
	}
}

func (p *process) answer(r request) {
	out := reply{ID: r.ID}
	result, err := p.do(r)
	if err == nil {
		out.Result, err = json.Marshal(result)
	}
	if err != nil {
		out.setError(err)
	}
	p.send.Lock()
	defer p.send.Unlock()
	json.NewEncoder(p.conn).Encode(out) // if this fails, serve is ending too
}

func (p *process) do(r request) (any, error) {
	if r.Op == opStart {
		return with(r, p.start)
	}
	if p.memory == nil {
		return nil, fmt.Errorf("%s before %s", r.Op, opStart)
	}
	switch r.Op {
	case opTouch:
		return with(r, p.memory.touch)
	case opCheck:
		return with(r, p.memory.check)
	case opBalloon:
		return with(r, p.memory.balloon)
	case opPoisoned:
		return with(r, p.memory.poisoned)
	case opResident:
		return p.memory.resident()
	case opGuest:
		return with(r, p.memory.runGuest)
	}
	return nil, fmt.Errorf("unknown operation %q", r.Op)
}

// with decodes the argument that f takes.
func with[A, R any](r request, f func(A) (R, error)) (any, error) {
	var arg A
	if err := json.Unmarshal(r.Arg, &arg); err != nil {
		return nil, fmt.Errorf("argument: %w", err)
	}
	return f(arg)
}
