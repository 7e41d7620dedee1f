// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestHealth (A4): what an operator asks of an instance.
func TestHealth(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	if h := c.Health(); !h.AttestationExpiry.IsZero() || h.RenewalError != nil || h.Metadata || h.Method != "" || h.ClockOffset != 0 {
		t.Errorf("at first: %+v", h)
	}
	if n := r.total(); n != 0 {
		t.Errorf("%d requests", n)
	}
	if err := grant(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	h := c.Health()
	if left := h.AttestationExpiry.Sub(r.clock.now()); left <= 0 || left > 24*time.Hour || h.RenewalError != nil || !h.Metadata || h.Method != transport.MethodPoP {
		t.Errorf("after a token: %+v", h)
	}
	expiry := h.AttestationExpiry
	for _, test := range []struct {
		err   error
		keeps bool
	}{{client.ErrAttesterUnavailable, true}, {client.ErrAttestationRefused, false}} {
		r.attester.set(func(context.Context, client.AttestRequest, int) (string, error) { return "", test.err })
		if err := c.Renew(t.Context()); !errors.Is(err, test.err) {
			t.Fatal(err)
		}
		h := c.Health()
		if !errors.Is(h.RenewalError, test.err) || h.AttestationExpiry.Equal(expiry) != test.keeps || !test.keeps && !h.AttestationExpiry.IsZero() {
			t.Errorf("after %v: %+v", test.err, h)
		}
	}
	r.attester.set(selfAttest(t))
	if err := c.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h := c.Health(); h.RenewalError != nil || h.AttestationExpiry.IsZero() {
		t.Errorf("after a good one: %+v", h)
	}
}

// TestDefaultKeyName: it is the name that New uses.
func TestDefaultKeyName(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	cfg := r.config()
	cfg.KeyName = ""
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := r.store.Open(t.Context(), client.DefaultKeyName(cfg.Issuer, cfg.ClientID)); err != nil {
		t.Error(err)
	}
}
