// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A chipKey takes as long for a signature as a TPM.
type chipKey struct {
	keystore.Key
	signed atomic.Int32
}

const chipTime = 200 * time.Millisecond

func (k *chipKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	k.signed.Add(1)
	select {
	case <-time.After(chipTime):
		return k.Key.Sign(ctx, input)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// withChip has the rig and its client live by the time of the bubble, with such a key.
func withChip(t *testing.T, r *rig) (key *chipKey, edit func(*client.Config)) {
	key = &chipKey{Key: newKey(t, "ES256")}
	r.now = time.Now
	return key, func(cfg *client.Config) {
		cfg.Key, cfg.Store, cfg.Clock, cfg.SignAhead = key, nil, nil, 10*time.Second
	}
}

// TestPrepare: a request for which it was prepared does not wait for the key, nor do those
// that follow.
func TestPrepare(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		key, chip := withChip(t, r)
		c := r.client(t, chip)
		for range 2 {
			if err := c.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := r.Count(transporttest.Token); n != 0 || key.signed.Load() != 1 {
			t.Errorf("%d requests, %d signatures", n, key.signed.Load())
		}
		for range 3 {
			start := time.Now()
			if err := grant(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took != 0 {
				t.Errorf("took %s", took)
			}
			time.Sleep(time.Second)
		}
		if h := c.Health(); h.SentAhead != 3 || h.UnusedAhead != 0 {
			t.Errorf("%d sent, %d unused", h.SentAhead, h.UnusedAhead)
		}
		time.Sleep(time.Hour)
		if h := c.Health(); h.UnusedAhead != 1 || key.signed.Load() != 4 {
			t.Errorf("after an idle hour: %d unused, %d signatures", h.UnusedAhead, key.signed.Load())
		}
		c.Close()
		if err := c.Prepare(t.Context()); !errors.Is(err, client.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestPrepareFails(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	if err := r.client(t).Prepare(t.Context()); !errors.Is(err, transport.ErrSignAhead) {
		t.Errorf("without SignAhead: %v", err)
	}
	c := r.client(t, func(cfg *client.Config) { cfg.SignAhead = time.Second })
	r.attester.set(func(context.Context, client.AttestRequest, int) (string, error) {
		return "", client.ErrAttesterUnavailable
	})
	var failure *transport.Error
	if err := c.Prepare(t.Context()); !errors.Is(err, client.ErrAttesterUnavailable) || !errors.As(err, &failure) || failure.Step != transport.StepAttestation {
		t.Errorf("without an attestation: %v", err)
	}
	down := r.client(t, func(cfg *client.Config) { cfg.SignAhead, cfg.Issuer = time.Second, "http://127.0.0.1:1" })
	if err := down.Prepare(t.Context()); !errors.Is(err, client.ErrMetadata) {
		t.Errorf("without metadata: %v", err)
	}
}
