package pager

// queue is a first-in-first-out ring that grows by doubling and never shrinks, so
// that a core in its stride allocates nothing.
type queue[T any] struct {
	ring    []T // its length is zero or a power of two
	head, n int
}

func (q *queue[T]) push(v T) {
	if q.n == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = v
	q.n++
}

func (q *queue[T]) pop() (v T, ok bool) {
	if q.n == 0 {
		return v, false
	}
	v, q.ring[q.head] = q.ring[q.head], v // the ring must not keep what it gave away
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	return v, true
}

func (q *queue[T]) grow() {
	ring := make([]T, max(2*len(q.ring), 16))
	for i := range q.n {
		ring[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
	}
	q.ring, q.head = ring, 0
}
