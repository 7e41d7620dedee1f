// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// notePatience is how long a note waits for another process that changes keys. Where it
// cannot be written, each process finds out for itself what it would say.
const notePatience = time.Second

// notes are what is being written into key files while nobody waits for it any more.
type notes struct {
	mu      sync.Mutex
	closed  bool
	writing sync.WaitGroup
}

// write calls f, and returns when f does, or ctx ends.
func (n *notes) write(ctx context.Context, f func(context.Context)) {
	written := n.begin(context.WithoutCancel(ctx), f)
	if written == nil { // nobody would wait for it
		limited, cancel := context.WithTimeout(ctx, notePatience)
		defer cancel()
		f(limited)
		return
	}
	select {
	case <-written:
	case <-ctx.Done():
	}
}

// begin has f called in the background, and returns what is closed when f has returned;
// nil after close.
func (n *notes) begin(ctx context.Context, f func(context.Context)) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	written := make(chan struct{})
	n.writing.Go(func() {
		defer close(written)
		limited, cancel := context.WithTimeout(ctx, notePatience)
		defer cancel()
		f(limited)
	})
	return written
}

// close waits for what is being written, as long as a disk may take that hangs.
func (n *notes) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	done := make(chan struct{})
	go func() {
		n.writing.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(closeTimeout):
	}
}

// note changes a key's file, unless it is another key's by now. What is only noted keeps
// nobody waiting for longer than his context, or for another process.
func (s *Store) note(ctx context.Context, name string, k *keyfile.File, change func(*keyfile.File) *keyfile.File) {
	s.notes.write(ctx, func(ctx context.Context) {
		unlock, err := s.folder.Lock(ctx)
		if err != nil {
			return
		}
		defer unlock()
		now, err := s.folder.load(name)
		if err != nil || holderOf(now) != holderOf(k) {
			return
		}
		if changed := change(now); !bytes.Equal(changed.Text, now.Text) {
			_ = s.folder.Replace(name, changed.Text)
		}
	})
}
