// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// cutBodies gives successful answers of one path a body that ends as end says.
type cutBodies struct {
	http.RoundTripper
	path string
	end  func(context.Context) error
}

func (c cutBodies) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(req)
	if err == nil && req.URL.Path == c.path && resp.StatusCode == http.StatusOK {
		resp.Body = cutBody{resp.Body, req.Context(), c.end}
	}
	return resp, err
}

type cutBody struct {
	io.ReadCloser
	ctx context.Context
	end func(context.Context) error
}

func (b cutBody) Read([]byte) (int, error) { return 0, b.end(b.ctx) }

func stall(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func breakOff(context.Context) error { return io.ErrUnexpectedEOF }

// TestTokenBodies: an answer that begins and does not end is a failure of the
// network, with its cause, and not an answer that nobody understands.
func TestTokenBodies(t *testing.T) {
	token := func(ctx context.Context, c *client.Client) (*oauth2.Token, error) { return c.Token(ctx) }
	refresh := func(ctx context.Context, c *client.Client) (*oauth2.Token, error) { return c.Refresh(ctx, "refresh") }
	for name, test := range map[string]struct {
		get   func(context.Context, *client.Client) (*oauth2.Token, error)
		end   func(context.Context) error
		again bool // the server asks for another challenge first
		cause error
		after time.Duration
	}{
		"Token, cut":                    {token, breakOff, false, io.ErrUnexpectedEOF, 0},
		"Token, stalls":                 {token, stall, false, context.DeadlineExceeded, 2 * time.Minute},
		"Token, cut on second send":     {token, breakOff, true, io.ErrUnexpectedEOF, 0},
		"Refresh, cut":                  {refresh, breakOff, false, io.ErrUnexpectedEOF, 0},
		"Refresh, stalls":               {refresh, stall, false, context.DeadlineExceeded, 3 * time.Minute},
		"Refresh, stalls, another send": {refresh, stall, true, context.DeadlineExceeded, 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				c := r.client(t, func(cfg *client.Config) {
					cfg.Base = cutBodies{inProcess{r}, r.path(transporttest.Token), test.end}
				})
				sends := 1
				if test.again {
					sends = 2
					once := sync.OnceFunc(r.Rotate)
					r.Set(func(p *transporttest.Policy) {
						p.Before = func(request transporttest.Request) {
							if request.Endpoint == transporttest.Token {
								once()
							}
						}
					})
				}
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
				defer cancel()
				begin := time.Now()
				_, err := test.get(ctx, c)
				var failure *transport.Error
				if !errors.Is(err, test.cause) || !errors.As(err, &failure) {
					t.Fatalf("error %v, want a *transport.Error with %v", err, test.cause)
				}
				if failure.Step != "send" || failure.Send != sends || failure.Status != 0 || !failure.Temporary() {
					t.Errorf("step %q, send %d, status %d, temporary %t", failure.Step, failure.Send, failure.Status, failure.Temporary())
				}
				if waited := time.Since(begin); waited != test.after {
					t.Errorf("failed after %v, want %v", waited, test.after)
				}
				requests := sends
				if name == "Token, stalls" {
					requests += 12 // after 5 s, and then each 10 s
				}
				if n := r.Count(transporttest.Token); n != requests {
					t.Errorf("%d token requests, want %d", n, requests)
				}
			})
		})
	}
}

// TestTokenRedirects: a redirect of the token endpoint will be there next time
// too.
func TestTokenRedirects(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	r.Set(func(p *transporttest.Policy) { redirectToken(p, http.StatusTemporaryRedirect) })
	c := r.client(t)
	_, ofToken := c.Token(t.Context())
	_, ofRefresh := c.Refresh(t.Context(), "refresh")
	for _, err := range []error{ofToken, ofRefresh} {
		var failure *transport.Error
		if !errors.Is(err, transport.ErrRedirect) || !errors.As(err, &failure) || failure.Step != "send" || failure.Send != 1 || failure.Temporary() {
			t.Errorf("error %v, want ErrRedirect of step \"send\" that does not pass", err)
		}
		if errors.As(err, new(*url.Error)) {
			t.Errorf("%v: the URL is said twice", err)
		}
	}
	if n := r.Count(transporttest.Token); n != 2 {
		t.Errorf("%d token requests, want 2", n)
	}
}
