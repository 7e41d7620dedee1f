// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestCloseEndsDetachedFetches, and those who wait for them, but no request that
// is under way.
func TestCloseEndsDetachedFetches(t *testing.T) {
	for name, p := range map[string]policy{"challenge": {}, "nonce": {Combined: true}} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, p)
			synctest.Test(t, func(t *testing.T) {
				f.inProcess()
				release := make(chan struct{})
				f.server.Set(func(p *policy) {
					p.Before = func(r transporttest.Request) {
						if r.Endpoint == transporttest.Challenge {
							<-release
						}
					}
				})
				ctx, cancel := context.WithCancel(t.Context())
				gone := f.start(ctx) // starts the fetch, and leaves it behind
				synctest.Wait()
				waits := f.start(t.Context())
				synctest.Wait()
				cancel()
				if err := <-gone; !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled: %v", err)
				}
				start := time.Now()
				for range 2 {
					if err := f.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				}
				err := <-waits
				if own := (*transport.Error)(nil); !errors.Is(err, transport.ErrClosed) || !errors.As(err, &own) || own.Step != "get challenge" || own.Temporary() {
					t.Errorf("error %v, want ErrClosed while getting a challenge", err)
				}
				if waited := time.Since(start); waited != 0 {
					t.Errorf("waited %s after Close", waited)
				}
				f.counts(0, 1)
				close(release)
			}) // fails if a goroutine is left
		})
	}
}

func TestCloseLeavesRequestsUnderWay(t *testing.T) {
	f := newFixture(t, policy{})
	judged := f.hold()
	end := f.start(t.Context())
	answer := <-judged
	f.Close()
	close(answer)
	if err := <-end; err != nil {
		t.Error(err)
	}
}

// TestAfterClose: nothing is authenticated any more, and all else passes.
func TestAfterClose(t *testing.T) {
	f := newFixture(t, policy{})
	f.token(http.StatusOK)
	f.Close()
	f.server.Forget()
	req := f.request(t.Context())
	body := newSpyBody()
	req.Body = body
	if err := f.fail(req); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("error %v", err)
	}
	if n := body.closes.Load(); n != 1 {
		t.Errorf("body closed %d times", n)
	}
	f.counts(0, 0)
	if audience, _ := f.Audience(req); audience != f.server.Issuer {
		t.Error("the request is none to be authenticated any more")
	}
	f.want(http.StatusNotFound, newRequest(t, t.Context(), f.server.URL+"/elsewhere"))
}
