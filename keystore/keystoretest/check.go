// SPDX-License-Identifier: Apache-2.0

package keystoretest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/instancekey/instancekey/keystore"
)

// Check is Run for a program that is no test, such as one that tries out the hardware of
// a device. It calls newStore once for each check, which must return a Store that holds
// no keys. The error is nil if the Store keeps the contract. Otherwise it names each
// check that failed, and what was wrong. When ctx ends, the checks that are left fail.
func Check(ctx context.Context, newStore func() (keystore.Store, error)) error {
	var failed []error
	for _, c := range storeChecks {
		r := &recorder{}
		r.run(ctx, func() {
			c.run(r, func() keystore.Store {
				store, err := newStore()
				if err != nil {
					r.Fatalf("new Store: %v", err)
				}
				return store
			})
		})
		for _, found := range r.found {
			failed = append(failed, fmt.Errorf("keystoretest: %s: %s", c.name, found))
		}
	}
	return errors.Join(failed...)
}

// recorder is a tb that keeps what it is told.
type recorder struct {
	ctx   context.Context
	mu    sync.Mutex
	found []string
}

// run calls check in a goroutine of its own, which Fatalf can end.
func (r *recorder) run(ctx context.Context, check func()) {
	ctx, cancel := context.WithCancel(ctx)
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
