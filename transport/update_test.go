// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestUpdateUnderWay: while the table is replaced again and again, a POST to an endpoint
// that comes and goes is authenticated or not sent, each jti is sent once, and nobody
// else gets a header field.
func TestUpdateUnderWay(t *testing.T) {
	const old, other = "https://as.example.com/old", "https://elsewhere.example.com/token"
	var mu sync.Mutex
	seen := make(map[string]bool)
	var authenticated, refused atomic.Int64
	wire := roundTripper(func(req *http.Request) (*http.Response, error) {
		req.Body.Close()
		pop := transporttest.ParseProof(req.Header.Get(transport.HeaderAttestationPoP))
		mu.Lock()
		defer mu.Unlock()
		switch at := req.URL.String(); {
		case at == other && (pop != nil || req.Header.Get(transport.HeaderAttestation) != ""):
			t.Errorf("%s got credentials", at)
		case at != other && pop == nil:
			t.Errorf("%s got a bare request", at)
		case at != other && seen[pop.ID]:
			t.Errorf("jti %s came twice", pop.ID)
		case at != other:
			seen[pop.ID] = true
			authenticated.Add(1)
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
	})
	f := newFixture(t, policy{Kind: transporttest.NoChallenges}, func(cfg *transport.Config) {
		cfg.Base = wire
		cfg.Servers = []transport.Server{{Issuer: "https://as.example.com", Endpoints: []string{old}}}
	})
	stop := make(chan struct{})
	var updates sync.WaitGroup
	updates.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			place := []string{old, "https://as.example.com/new"}[i%2]
			if err := f.Update([]transport.Server{{Issuer: "https://as.example.com", Endpoints: []string{place}}}, nil); err != nil {
				t.Error(err)
			}
		}
	})
	var callers sync.WaitGroup
	for range 32 {
		callers.Go(func() {
			for i := range 20 {
				resp, err := f.RoundTrip(newRequest(t, t.Context(), []string{old, other}[i%2]))
				var failed *transport.Error
				switch {
				case err == nil:
					resp.Body.Close()
				case errors.As(err, &failed) && failed.Step == transport.StepMetadata && i%2 == 0:
					refused.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	close(stop)
	updates.Wait()
	if n := authenticated.Load() + refused.Load(); n != 320 {
		t.Errorf("%d authenticated and %d refused, want 320 in all", authenticated.Load(), refused.Load())
	}
}

// TestUpdateRefuses: after an error nothing has changed.
func TestUpdateRefuses(t *testing.T) {
	const issuer, rs = "https://as.example.com", "https://rs.example.com/api"
	server := func(issuer string, endpoints ...string) transport.Server {
		return transport.Server{Issuer: issuer, Endpoints: endpoints}
	}
	for name, test := range map[string]struct {
		servers   []transport.Server
		resources []transport.Resource
		says      string
	}{
		"an endpoint twice":              {[]transport.Server{server(issuer, issuer+"/token", issuer+"/token")}, nil, "twice"},
		"an endpoint twice, other case":  {[]transport.Server{server(issuer, issuer+"/token", "https://AS.example.com:443/token")}, nil, "twice"},
		"an endpoint of two servers":     {[]transport.Server{server(issuer, issuer+"/token"), server("https://other.example.com", issuer+"/token")}, nil, "in common"},
		"a server twice":                 {[]transport.Server{server(issuer, issuer+"/a"), server(issuer, issuer+"/b")}, nil, "twice"},
		"a resource twice":               {nil, []transport.Resource{{Identifier: rs}, {Identifier: rs}}, "twice"},
		"a resource twice, default port": {nil, []transport.Resource{{Identifier: rs}, {Identifier: "https://rs.example.com:443/api"}}, "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, policy{})
			if err := f.Update(test.servers, test.resources); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want an error that says %q", err, test.says)
			}
			f.token(200)
		})
	}
}
