// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// waitingContext tells when somebody waits for its end, as a caller in a queue does.
type waitingContext struct {
	context.Context
	once  sync.Once
	waits chan struct{}
}

func newWaitingContext(ctx context.Context) *waitingContext {
	return &waitingContext{Context: ctx, waits: make(chan struct{})}
}

func (c *waitingContext) Done() <-chan struct{} {
	c.once.Do(func() { close(c.waits) })
	return c.Context.Done()
}

// TestBackgroundIsLast: what nobody waits for is signed after what somebody does, also
// with the other keys of the Store, until somebody waits for that, too.
func TestBackgroundIsLast(t *testing.T) {
	r := newRig(t, tpmtest.Simulator(t))
	keys := []keystore.Key{create(t, r.Store, "a", tpm.KeyOptions{}), create(t, r.Store, "b", tpm.KeyOptions{}), create(t, r.Store, "c", tpm.KeyOptions{})}
	block := r.faults.Add(tpmtest.Fault{Command: ccSign, Block: true})
	r.calls.Reset()

	var wg sync.WaitGroup
	begin := func(key keystore.Key, ctx context.Context, input string) {
		waiting := newWaitingContext(ctx)
		wg.Go(func() {
			if _, err := key.Sign(waiting, []byte(input)); err != nil {
				t.Errorf("%s: %v", input, err)
			}
		})
		<-waiting.waits
	}
	wanted, never := make(chan struct{}), make(chan struct{})
	begin(keys[0], t.Context(), "first")
	<-block.Blocked()
	begin(keys[0], keystore.InBackground(t.Context(), never), "ahead, of the key in use")
	begin(keys[1], keystore.InBackground(t.Context(), nil), "ahead, of another key")
	begin(keys[1], keystore.InBackground(t.Context(), wanted), "wanted")
	begin(keys[1], t.Context(), "second")
	begin(keys[2], t.Context(), "third")
	close(wanted) // and has its place behind those that wait already, sooner or later
	block.Release()
	wg.Wait()

	var order []string
	for _, e := range r.calls.Exchanges() {
		for _, input := range []string{"first", "ahead, of the key in use", "ahead, of another key", "second", "third"} {
			if digest := sha256.Sum256([]byte(input)); e.Code == ccSign && bytes.Contains(e.Command, digest[:]) {
				order = append(order, input)
			}
		}
	}
	if want := []string{"first", "second", "third", "ahead, of the key in use", "ahead, of another key"}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
}

// TestBackgroundPIN: nobody is asked for a PIN in the background, and one that is known is
// used.
func TestBackgroundPIN(t *testing.T) {
	var asked atomic.Int64
	r := newRig(t, tpmtest.Simulator(t), func(c *tpm.Config) {
		c.PIN = func(context.Context, string) ([]byte, error) {
			asked.Add(1)
			return []byte("1234"), nil
		}
	})
	key := create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
	asked.Store(0)
	r.calls.Reset()
	wanted := make(chan struct{})
	close(wanted)
	for _, wanted := range []chan struct{}{nil, wanted} {
		_, err := key.Sign(keystore.InBackground(t.Context(), wanted), []byte("input"))
		wantError(t, err, keystore.ErrAuth)
	}
	if n := r.calls.Count(ccSign); asked.Load() != 0 || n != 0 {
		t.Errorf("asked %d times, %d signatures tried", asked.Load(), n)
	}
	sign(t, key)
	if _, err := key.Sign(keystore.InBackground(t.Context(), nil), []byte("input")); err != nil || asked.Load() != 1 {
		t.Errorf("with a known PIN: %v, asked %d times", err, asked.Load())
	}
}
