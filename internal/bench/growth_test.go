// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// answers is a base transport without a network.
type answers struct{}

func (answers) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		req.Body.Close()
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
		Body: io.NopCloser(strings.NewReader(`{"access_token":"t","token_type":"Bearer","expires_in":300}`)),
	}, nil
}

// TestGrowth: 1 to 1,000 Clients over one Store, and 1 to 1,000 goroutines on one Client,
// cost each request the same, and leave no goroutine behind.
func TestGrowth(t *testing.T) {
	const requests = 2000
	attester := transporttest.New(t, transporttest.Config{}).Attester
	store := softkey.New()
	newClient := func(i int) *client.Client {
		issuer := fmt.Sprintf("https://as-%d.example.com", i)
		c, err := client.New(t.Context(), client.Config{
			Issuer: issuer, ClientID: "client", Store: store, Base: answers{},
			Attester: attesterFunc(func(_ context.Context, req client.AttestRequest) (string, error) {
				return attester.Attest(req.Key.Public()), nil
			}),
			Metadata: &client.Metadata{Issuer: issuer, TokenEndpoint: issuer + "/token"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	post := func(c *client.Client) {
		s, err := c.Metadata(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := c.HTTPClient().Post(s.TokenEndpoint, "application/x-www-form-urlencoded", strings.NewReader("grant_type=client_credentials"))
		if err != nil {
			t.Error(err)
			return
		}
		resp.Body.Close()
	}
	for _, test := range []struct{ clients, goroutines int }{{1, 1}, {10, 1}, {100, 1}, {1000, 1}, {1, 10}, {1, 100}, {1, 1000}} {
		before := live()
		var clients []*client.Client
		for i := range test.clients {
			c := newClient(i)
			post(c) // which gets its attestation
			clients = append(clients, c)
		}
		held := float64(live()-before) / float64(test.clients)
		goroutines := runtime.NumGoroutine()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		allocated, start := stats.TotalAlloc, processorTime(t)
		var wg sync.WaitGroup
		for g := range test.goroutines {
			wg.Go(func() {
				for i := g; i < requests; i += test.goroutines {
					post(clients[i%len(clients)])
				}
			})
		}
		wg.Wait()
		took := (processorTime(t) - start) / requests
		runtime.ReadMemStats(&stats)
		each := (stats.TotalAlloc - allocated) / requests
		t.Logf("%5d Clients, %5d goroutines: %4d µs of a processor and %3d KiB a request; %5.1f KiB a Client", test.clients, test.goroutines, took.Microseconds(), each>>10, held/1024)
		if n := runtime.NumGoroutine(); n > goroutines+2 {
			t.Errorf("%d goroutines more than before", n-goroutines)
		}
		if each > 64<<10 {
			t.Errorf("%d bytes a request", each)
		}
		for _, c := range clients {
			c.Close()
		}
	}
}

func live() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
