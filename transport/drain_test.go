// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestStalledBodyOfARefusal: a refusal whose code has come is not waited for.
func TestStalledBodyOfARefusal(t *testing.T) {
	t.Run("body", func(t *testing.T) {
		f := newFixture(t, policy{})
		synctest.Test(t, func(t *testing.T) {
			var bodies []*stalledBody
			f.Transport = f.another(func(c *transport.Config) {
				c.Resources = []transport.Resource{{Identifier: "https://rs.example/api"}}
				c.Base = roundTripper(func(*http.Request) (*http.Response, error) {
					if len(bodies) > 0 {
						return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
					}
					bodies = append(bodies, &stalledBody{closed: make(chan struct{})})
					header := http.Header{"Www-Authenticate": {`Bearer error="use_attestation_challenge"`}}
					header.Set(transport.HeaderChallenge, "another")
					return &http.Response{StatusCode: 401, Header: header, Body: bodies[0]}, nil
				})
			})
			start := time.Now()
			f.want(http.StatusOK, get(t, "https://rs.example/api"))
			if waited := time.Since(start); waited > time.Second {
				t.Errorf("the retry came after %s", waited)
			}
			if n := bodies[0].closes; n != 1 {
				t.Errorf("body closed %d times", n)
			}
		})
	})
	for name, body := range map[string]string{"network": "", "network, code in a body without end": `{"error":"use_attestation_challenge"}`} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, policy{Kind: transporttest.NoChallenges})
			release := make(chan struct{})
			defer close(release)
			var refused atomic.Bool
			f.server.Set(func(p *policy) {
				p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
					if r.Endpoint != transporttest.Token || refused.Swap(true) {
						return false
					}
					if body == "" {
						w.Header().Set("WWW-Authenticate", `Attest error="use_attestation_challenge"`)
					} else {
						w.Header().Set("Content-Type", "application/json")
					}
					w.Header().Set(transport.HeaderChallenge, "another")
					w.Header().Set("Content-Length", "100")
					w.WriteHeader(http.StatusUnauthorized)
					_, _ = io.WriteString(w, body)
					_ = http.NewResponseController(w).Flush()
					<-release
					return true
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			f.want(http.StatusOK, f.request(ctx))
			f.counts(2, 1)
		})
	}
}

// A stalledBody has nothing to read until it is closed.
type stalledBody struct {
	closed chan struct{}
	closes int
}

func (b *stalledBody) Read([]byte) (int, error) {
	<-b.closed
	return 0, io.ErrClosedPipe
}

func (b *stalledBody) Close() error {
	b.closes++
	close(b.closed)
	return nil
}
