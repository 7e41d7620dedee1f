// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestTrace: each hook is called as often as the thing happens.
func TestTrace(t *testing.T) {
	var (
		mu     sync.Mutex
		events = make(map[string][]transport.TraceEvent)
	)
	hook := func(name string) func(context.Context, transport.TraceEvent) {
		return func(ctx context.Context, e transport.TraceEvent) {
			mu.Lock()
			defer mu.Unlock()
			if ctx.Value(traceKey{}) != "value" {
				t.Errorf("%s: the request's context was lost", name)
			}
			events[name] = append(events[name], e)
		}
	}
	f := newFixture(t, policy{}, func(c *transport.Config) {
		c.Trace = &transport.Trace{Challenge: hook("challenge"), Signature: hook("signature"), Request: hook("request")}
	})
	f.server.Set(func(p *policy) {
		p.Before = func(r transporttest.Request) {
			if r.Endpoint == transporttest.Token {
				f.server.Rotate()
				f.server.Set(func(p *policy) { p.Before = nil })
			}
		}
	})
	f.want(http.StatusOK, f.request(context.WithValue(t.Context(), traceKey{}, "value")))
	if c, s, r := len(events["challenge"]), len(events["signature"]), len(events["request"]); c != 1 || s != 2 || r != 2 {
		t.Fatalf("%d challenges, %d signatures, %d requests", c, s, r)
	}
	first, second := events["request"][0], events["request"][1]
	if first.Send != 1 || first.Status != 400 || first.Code != "use_attestation_challenge" || second.Send != 2 || second.Status != 200 || second.Code != "" {
		t.Errorf("%+v, %+v", first, second)
	}
	for name, all := range events {
		for _, e := range all {
			if e.Start.IsZero() || e.Duration < 0 || e.Err != nil || name != "signature" && e.Audience != f.server.Issuer {
				t.Errorf("%s: %+v", name, e)
			}
			if isSignature := name == "signature"; isSignature != (e.Kind == "oauth-client-attestation-pop+jwt") || e.Waited < 0 || !isSignature && e.Waited != 0 {
				t.Errorf("%s: %+v", name, e)
			}
			f.noSecretIn(fmt.Sprintf("%+v", e))
		}
	}
	t.Run("failures", func(t *testing.T) {
		var failed []error
		f := newFixture(t, policy{Cut: true}, func(c *transport.Config) {
			c.Trace = &transport.Trace{Challenge: func(_ context.Context, e transport.TraceEvent) { failed = append(failed, e.Err) }}
		})
		f.fail(f.request(t.Context()))
		if len(failed) != 1 || failed[0] == nil {
			t.Errorf("%v", failed)
		}
	})
}

type traceKey struct{}
