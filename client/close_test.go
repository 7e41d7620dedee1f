// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
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
	if _, err := r.store.Open(t.Context(), "other"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("the store after Close: %v, want ErrNotFound", err)
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
				for i := range cap(results) {
					go func() {
						if i%2 == 0 || endpoint == transporttest.Token { // requests under way go on
							_, err := c.Token(t.Context())
							results <- err
							return
						}
						_, err := c.HTTPClient().PostForm(r.Endpoint(transporttest.Token), url.Values{"grant_type": {"g"}})
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

// TestCloseEndsChallengeRequests, at the server and at a resource, that nobody
// waits for any more; and what comes after fails.
func TestCloseEndsChallengeRequests(t *testing.T) {
	const resource = "https://rs.example/api"
	for _, url := range []string{"", resource} {
		t.Run(url, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				url, challenges := url, "https://rs.example/challenge"
				if url == "" {
					url, challenges = r.Endpoint(transporttest.Token), r.Endpoint(transporttest.Challenge)
				}
				var ended []time.Duration // of challenge requests, since the start
				start := time.Now()
				c := r.client(t, func(cfg *client.Config) {
					cfg.Resources = []client.Resource{{Identifier: resource, Attestation: client.AttestAlways}}
					cfg.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
						switch req.URL.String() {
						case challenges:
							<-req.Context().Done()
							ended = append(ended, time.Since(start))
							return nil, req.Context().Err()
						case "https://rs.example/.well-known/oauth-protected-resource/api":
							body := `{"resource":"` + resource + `","challenge_endpoint":"` + challenges + `"}`
							return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}, nil
						}
						return inProcess{r}.RoundTrip(req)
					})
				})
				post := func(ctx context.Context) error {
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("a=b"))
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
					_, err = c.HTTPClient().Do(req)
					return err
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := post(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v", err)
				}
				if len(ended) != 0 {
					t.Fatalf("challenge requests ended after %v", ended)
				}
				c.Close()
				synctest.Wait()
				if len(ended) != 1 || ended[0] != time.Second {
					t.Errorf("challenge requests ended after %v, want one, by Close", ended)
				}
				if err := post(t.Context()); !errors.Is(err, client.ErrClosed) {
					t.Errorf("error %v, want ErrClosed", err)
				}
			})
		})
	}
}
