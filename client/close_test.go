package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

func TestClose(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	if _, err := c.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	total := r.total()
	for range 2 {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := c.Token(t.Context()); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Token, though one is kept: %v, want ErrClosed", err)
	}
	if _, err := c.Endpoint(t.Context()); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Endpoint: %v, want ErrClosed", err)
	}
	if _, err := c.Refresh(t.Context(), "refresh"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Refresh: %v, want ErrClosed", err)
	}
	if n := r.total() - total; n != 0 {
		t.Errorf("%d requests after Close, want 0", n)
	}
	if _, err := r.store.Open(t.Context(), "other"); err == nil || r.store.opens.Load() == 0 {
		t.Error("the store was closed")
	}
}

func TestCloseEndsWaitingCalls(t *testing.T) {
	for _, endpoint := range []string{transporttest.Metadata, transporttest.Challenge, transporttest.Token, "attester"} {
		t.Run(endpoint, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				ended := make(chan struct{})
				t.Cleanup(func() { close(ended) })
				r.Set(func(p *transporttest.Policy) {
					p.Before = func(request transporttest.Request) {
						if request.Endpoint == endpoint {
							<-ended
						}
					}
				})
				if endpoint == "attester" {
					r.attester.set(func(ctx context.Context, _ client.AttestRequest, _ int) (string, error) {
						<-ctx.Done()
						return "", ctx.Err()
					})
				}
				c := r.client(t)
				results := make(chan error, 8)
				for range cap(results) {
					go func() {
						_, err := c.Token(t.Context())
						results <- err
					}()
				}
				synctest.Wait()
				begin := time.Now()
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				for range cap(results) {
					if err := <-results; !errors.Is(err, client.ErrClosed) {
						t.Errorf("error %v, want ErrClosed", err)
					}
				}
				if waited := time.Since(begin); waited != 0 {
					t.Errorf("callers waited %v after Close", waited)
				}
			})
		})
	}
}
