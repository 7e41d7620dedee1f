// SPDX-License-Identifier: Apache-2.0

// Package turn is the queue before what does one thing at a time and cannot be
// interrupted: a key, a TPM.
package turn

import (
	"container/list"
	"context"
	"sync"
)

// A Queue gives one caller at a time the turn, in the order in which they came. Those
// who come in the background, for what nobody waits for yet, have it when nobody else
// wants it. The zero Queue is ready for use.
type Queue struct {
	mu         sync.Mutex
	taken      bool
	waiting    list.List // of chan struct{}, closed when it is that one's turn
	background list.List // likewise
}

// Take waits for the turn until ctx or life ends, and then returns the error of the one
// that did.
func (q *Queue) Take(ctx, life context.Context) error { return q.take(ctx, life, nil, false) }

// TakeInBackground is Take for what nobody waits for until wanted is closed. From then
// on it is Take. A nil channel is never closed.
func (q *Queue) TakeInBackground(ctx, life context.Context, wanted <-chan struct{}) error {
	return q.take(ctx, life, wanted, true)
}

func (q *Queue) take(ctx, life context.Context, wanted <-chan struct{}, background bool) error {
	q.mu.Lock()
	if !q.taken {
		q.taken = true
		q.mu.Unlock()
		return nil
	}
	mine, in := make(chan struct{}), &q.waiting
	if background {
		in = &q.background
	}
	place := in.PushBack(mine)
	q.mu.Unlock()
	for {
		select {
		case <-mine:
			return nil
		case <-wanted:
			wanted = nil
			q.mu.Lock()
			if !isClosed(mine) {
				q.background.Remove(place)
				in, place = &q.waiting, q.waiting.PushBack(mine)
			}
			q.mu.Unlock()
		case <-ctx.Done():
			q.leave(in, place, mine)
			return ctx.Err()
		case <-life.Done():
			q.leave(in, place, mine)
			return life.Err()
		}
	}
}

// leave gives up a place in the queue, and the turn if it has come meanwhile.
func (q *Queue) leave(in *list.List, place *list.Element, mine chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if isClosed(mine) {
		q.next()
		return
	}
	in.Remove(place)
}

// Give ends the turn of whoever has it.
func (q *Queue) Give() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.next()
}

// next lets the next one have the turn. q.mu is held.
func (q *Queue) next() {
	for _, l := range []*list.List{&q.waiting, &q.background} {
		if first := l.Front(); first != nil {
			close(l.Remove(first).(chan struct{}))
			return
		}
	}
	q.taken = false
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
