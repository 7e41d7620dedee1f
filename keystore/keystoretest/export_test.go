// SPDX-License-Identifier: Apache-2.0

package keystoretest

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/instancekey/instancekey/keystore"
)

const CallersAtOnce = callersAtOnce

var HoldsPrivateKey = holdsPrivateKey

// Findings runs every check, those of RunPersistent included, and returns what
// each of them found fault with. It also returns the number of checks.
func Findings(newPlace func() func() keystore.Store) (found map[string][]string, checks int) {
	found = make(map[string][]string)
	for _, list := range [][]storeCheck{storeChecks, restartChecks} {
		for _, c := range list {
			checks++
			r := &recorder{}
			r.run(func() { c.run(r, newPlace()) })
			if len(r.found) != 0 {
				found[c.name] = r.found
			}
		}
	}
	return found, checks
}

// recorder is a tb that keeps what it is told.
type recorder struct {
	ctx   context.Context
	mu    sync.Mutex
	found []string
}

// run calls check in a goroutine of its own, which Fatalf can end.
func (r *recorder) run(check func()) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r.ctx = ctx
	done := make(chan struct{})
	go func() {
		defer close(done)
		check()
	}()
	<-done
}

func (r *recorder) Helper()                  {}
func (r *recorder) Context() context.Context { return r.ctx }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found = append(r.found, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}
