package firecracker

import (
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"faultline/handoff"
)

// enter makes a handshake one of those under way. If there are too many, the
// oldest one that is unfinished ends, so that silent clients can't keep others
// out; if all are finished and wait for Accept, so does enter.
func (l *Listener) enter(conn *net.UnixConn) *pending {
	p := &pending{conn: conn}
	conn.SetReadDeadline(time.Now().Add(l.options.Timeout))
	for !l.tryEnter(p) {
		select {
		case <-l.left:
		case <-l.closing:
		}
	}
	return p
}

func (l *Listener) tryEnter(p *pending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isStopping() {
		p.conn.SetReadDeadline(past)
	} else if len(l.pending) >= l.options.Handshakes {
		i := slices.IndexFunc(l.pending, func(q *pending) bool { return !q.finished })
		if i < 0 {
			return false
		}
		l.pending[i].crowded = true
		l.pending[i].conn.SetReadDeadline(past)
		l.pending = slices.Delete(l.pending, i, i+1)
	}
	l.pending = append(l.pending, p)
	return true
}

// past is a deadline that ends a read at once.
var past = time.Unix(1, 0)

func (l *Listener) isStopping() bool {
	select {
	case <-l.stopping:
		return true
	default:
		return false
	}
}

// finish marks a handshake as one that must not be ended any more, and reports
// whether it was told to make room before.
func (l *Listener) finish(p *pending) (crowded bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.finished = true
	return p.crowded
}

// leave is enter's opposite.
func (l *Listener) leave(p *pending) {
	l.mu.Lock()
	l.pending = slices.DeleteFunc(l.pending, func(q *pending) bool { return q == p })
	l.mu.Unlock()
	select {
	case l.left <- struct{}{}:
	default:
	}
}

// handshake receives a client and hands it to Accept, or refuses it.
func (l *Listener) handshake(p *pending) {
	defer l.leave(p)
	client, pid, err := greet(p.conn)
	crowded := l.finish(p)
	if err != nil {
		p.conn.Close()
		if crowded && errors.Is(err, ErrTimeout) {
			err = ErrCrowded
		}
		l.refuse(&HandshakeError{PID: pid, Err: err})
		return
	}
	p.conn.SetReadDeadline(time.Time{})
	select {
	case l.clients <- client:
	case <-l.closing:
		client.Close()
	}
}

// refuse tells of a client, unless it was Stop that ended its handshake.
func (l *Listener) refuse(err error) {
	if l.options.Refused != nil && !l.isStopping() {
		l.options.Refused(err)
	}
}

// greet does all of a handshake. The caller closes conn if it fails.
func greet(conn *net.UnixConn) (client *handoff.Client, pid int, err error) {
	who, err := identify(conn)
	if err != nil {
		return nil, who.pid, err
	}
	message, fd, err := receive(conn)
	if err != nil {
		unix.Close(who.pidfd)
		return nil, who.pid, err
	}
	client = &handoff.Client{UFFD: fd, PID: who.pid, PidFD: who.pidfd, Conn: conn}
	if client.Regions, err = Decode(message); err != nil {
		client.Close()
		return nil, who.pid, err
	}
	return client, who.pid, nil
}
