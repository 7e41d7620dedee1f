// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

func TestAttestationIsAskedForOnce(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, *rig, *client.Client){
		"cold": func(*testing.T, *rig, *client.Client) {},
		"expired": func(t *testing.T, r *rig, c *client.Client) {
			if err := grant(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			r.clock.advance(time.Hour)
		},
		"refused as not fresh": func(t *testing.T, r *rig, c *client.Client) {
			if err := grant(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			r.Deny(sent(r)[0])
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				c := r.client(t)
				prepare(t, r, c)
				before := len(r.attester.calls())
				release := make(chan struct{})
				r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
					<-release
					return r.Attester.Attest(req.Key.Public()), nil
				})
				const callers = 32
				results := make(chan error, callers)
				for range callers {
					go func() { results <- grant(t.Context(), c) }()
				}
				synctest.Wait()
				close(release)
				for range callers {
					if err := <-results; err != nil {
						t.Error(err)
					}
				}
				if n := len(r.attester.calls()) - before; n != 1 {
					t.Errorf("attester asked %d times for %d callers, want 1", n, callers)
				}
			})
		})
	}
}

func TestAttestationWaitsEndAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := r.client(t)
		release := make(chan struct{})
		up := r.attester.attest
		r.attester.set(func(ctx context.Context, req client.AttestRequest, call int) (string, error) {
			<-release
			if err := ctx.Err(); err != nil {
				return "", err
			}
			return up(ctx, req, call)
		})
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- grant(ctx, c) }()
		synctest.Wait()
		go func() { second <- grant(t.Context(), c) }()
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
		close(release)
		if err := <-second; err != nil {
			t.Errorf("the other caller: %v", err)
		}
		if n := len(r.attester.calls()); n != 1 {
			t.Errorf("attester asked %d times, want 1", n)
		}
	})
}

func TestAttesterThatHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := r.client(t)
		r.attester.set(func(ctx context.Context, _ client.AttestRequest, _ int) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})
		begin := time.Now()
		err := grant(t.Context(), c)
		var failure *transport.Error
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &failure) || failure.Step != "get attestation" {
			t.Errorf("error %v, want one of step \"get attestation\"", err)
		}
		if waited := time.Since(begin); waited > 2*time.Minute {
			t.Errorf("it took %v", waited)
		}
	})
}

// TestAttesterThatUsesOAuthItself: x/oauth2's request for a token has its HTTP client in
// the context, which is not the attester's to use.
func TestAttesterThatUsesOAuthItself(t *testing.T) {
	r := newRig(t, transporttest.Policy{UnknownClient: true})
	attest := r.attester.attest
	own := roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, errors.New("not there") })
	r.attester.set(func(ctx context.Context, req client.AttestRequest, call int) (string, error) {
		config := clientcredentials.Config{ClientID: "device", TokenURL: "https://elsewhere.example/token"}
		if _, err := config.Token(ctx); err == nil || !strings.Contains(err.Error(), "not there") {
			t.Errorf("not by the application's HTTP client: %v", err)
		}
		return attest(ctx, req, call)
	})
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: own})
	_, err := r.client(t).Token(ctx)
	var failure *transport.Error
	if !errors.As(err, &failure) || failure.Step != transport.StepAnswer || failure.Code != "invalid_client" {
		t.Errorf("%v, want the server's refusal", err)
	}
}
