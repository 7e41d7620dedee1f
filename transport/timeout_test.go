// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestTimeout: a deadline that has passed shows as one through http.Client,
// whoever set it and whatever was waited for.
func TestTimeout(t *testing.T) {
	for _, endpoint := range []string{transporttest.Challenge, transporttest.Token} {
		for name, set := range map[string]func(*http.Client, *http.Request) (*http.Request, context.CancelFunc){
			"of the client": func(c *http.Client, req *http.Request) (*http.Request, context.CancelFunc) {
				c.Timeout = time.Second
				return req, func() {}
			},
			"of the context": func(_ *http.Client, req *http.Request) (*http.Request, context.CancelFunc) {
				ctx, cancel := context.WithTimeout(req.Context(), time.Second)
				return req.WithContext(ctx), cancel
			},
		} {
			t.Run(endpoint+", deadline "+name, func(t *testing.T) {
				f := newFixture(t, policy{})
				synctest.Test(t, func(t *testing.T) {
					f.inProcess()
					release := make(chan struct{})
					defer close(release)
					f.server.Set(func(p *policy) {
						p.Before = func(r transporttest.Request) {
							if r.Endpoint == endpoint {
								<-release
							}
						}
					})
					client := &http.Client{Transport: f.Transport}
					req, cancel := set(client, f.request(t.Context()))
					defer cancel()
					_, err := client.Do(req)
					var outer *url.Error
					if !errors.As(err, &outer) || !outer.Timeout() {
						t.Errorf("error %v is no timeout of net/http", err)
					}
					var inner *transport.Error
					if errors.As(err, &inner) && !inner.Timeout() {
						t.Errorf("error %v is no timeout", inner)
					}
				})
			})
		}
	}
}

// TestTimeoutOf: which causes are one.
func TestTimeoutOf(t *testing.T) {
	for _, test := range []struct {
		cause   error
		timeout bool
	}{
		{context.DeadlineExceeded, true},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), true},
		{fmt.Errorf("x: %w", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}), true},
		{&net.DNSError{IsTimeout: true}, true},
		{&transport.Error{Err: context.DeadlineExceeded}, true},
		{&net.OpError{Op: "dial", Err: errTest}, false},
		{context.Canceled, false},
		{errTest, false},
		{nil, false},
	} {
		var err net.Error = &transport.Error{Step: "send", Err: test.cause}
		if err.Timeout() != test.timeout {
			t.Errorf("Timeout of %v is %v", test.cause, err.Timeout())
		}
	}
}
