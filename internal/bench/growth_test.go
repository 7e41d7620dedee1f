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
	"sync/atomic"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/transport"
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

// A caller makes requests with each of its clients, the i-th at the i-th server.
type caller struct {
	name    string
	proves  bool // each request is authenticated
	client  func(i int) *http.Client
	clients []*http.Client
	held    float64         // KiB of memory, each client
	took    []time.Duration // of a processor, a request, in each round
	bytes   uint64          // allocated, in all rounds

	requests int // in all rounds
}

func place(i int) string { return fmt.Sprintf("https://as-%d.example.com", i) }

// TestGrowth: 1 to 1,000 Clients over one Store, and 1 to 1,000 goroutines on one Client,
// cost each request the same, and leave no goroutine behind. Each way to call has its turn
// in each round, with clients that have their attestation, beside clients that are made by
// hand and nothing but HTTP. The processors' caches, the collector and the scheduler
// make those dearer, too.
func TestGrowth(t *testing.T) {
	rounds, requests := 1, 200
	if isMeasuring() {
		rounds, requests = 9, 4000
	}
	attester := transporttest.New(t, transporttest.Config{}).Attester
	var sent, proved atomic.Int64
	base := base(func(req *http.Request) (*http.Response, error) {
		if sent.Add(1); req.Header.Get(transport.HeaderAttestation) != "" && req.Header.Get(transport.HeaderAttestationPoP) != "" {
			proved.Add(1)
		}
		return answers{}.RoundTrip(req)
	})
	store := softkey.New()
	ours := func(i int) *http.Client {
		c, err := client.New(t.Context(), client.Config{
			Issuer: place(i), ClientID: "client", Store: store, Base: base,
			Attester: attesterFunc(func(_ context.Context, req client.AttestRequest) (string, error) {
				return attester.Attest(req.Key.Public()), nil
			}),
			Metadata: &client.Metadata{Issuer: place(i), TokenEndpoint: place(i) + "/token"},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.HTTPClient()
	}
	hand := func(int) *http.Client { return &http.Client{Transport: newByHand(t, attester, base)} }
	plain := func(int) *http.Client { return &http.Client{Transport: base} }
	post := func(c *http.Client, i int) {
		resp, err := c.Post(place(i)+"/token", "application/x-www-form-urlencoded", strings.NewReader("grant_type=client_credentials"))
		if err != nil {
			t.Error(err)
			return
		}
		resp.Body.Close()
	}

	type load struct{ clients, goroutines int }
	loads := []load{{1, 1}, {10, 1}, {100, 1}, {1000, 1}, {1, 10}, {1, 100}, {1, 1000}}
	callers := make([][]*caller, len(loads))
	for i, l := range loads {
		callers[i] = []*caller{
			{name: "instancekey", proves: true, client: ours}, {name: "by hand", proves: true, client: hand}, {name: "net/http", client: plain},
		}
		for _, c := range callers[i] {
			if i == 0 {
				post(c.client(0), 0) // what is made once is no client's
			}
			before := live()
			for n := range l.clients {
				c.clients = append(c.clients, c.client(n))
				post(c.clients[n], n) // which gets its attestation
			}
			c.held = float64(live()-before) / float64(l.clients) / 1024
		}
	}

	goroutines := runtime.NumGoroutine()
	for range rounds {
		for i, l := range loads {
			requests := max(requests, l.goroutines)
			for _, c := range callers[i] {
				sent.Store(0)
				proved.Store(0)
				bytes, start := allocated(), processorTime(t)
				var wg sync.WaitGroup
				for g := range l.goroutines {
					wg.Go(func() {
						for n := g; n < requests; n += l.goroutines {
							post(c.clients[n%l.clients], n%l.clients)
						}
					})
				}
				wg.Wait()
				c.took = append(c.took, (processorTime(t)-start)/time.Duration(requests))
				c.bytes += allocated() - bytes
				c.requests += requests
				if n, with := int(sent.Load()), int(proved.Load()); n != requests || c.proves && with != n || !c.proves && with != 0 {
					t.Errorf("%s: %d of %d requests, %d authenticated", c.name, n, requests, with)
				}
			}
		}
	}
	if n := runtime.NumGoroutine(); n > goroutines+2 {
		t.Errorf("%d goroutines more than before", n-goroutines)
	}

	mean := func(c *caller) uint64 { return c.bytes / uint64(c.requests) }
	for i, l := range loads {
		row := fmt.Sprintf("%5d Clients, %5d goroutines", l.clients, l.goroutines)
		for j, c := range callers[i] {
			one := callers[0][j]
			if mean(c) > mean(one)*3/2 || mean(c) > 64<<10 {
				t.Errorf("%s, %s: %d bytes a request, and %d with one of each", row, c.name, mean(c), mean(one))
			}
			took := quantile(c.took, 0.5)
			row += fmt.Sprintf("; %s %4d µs (×%.2f), %2d KiB", c.name, took.Microseconds(), float64(took)/float64(quantile(one.took, 0.5)), mean(c)>>10)
			if l.goroutines == 1 {
				row += fmt.Sprintf(", %4.1f KiB held", c.held)
			}
		}
		if isMeasuring() {
			t.Log(row)
		}
	}
}

type base func(*http.Request) (*http.Response, error)

func (b base) RoundTrip(req *http.Request) (*http.Response, error) { return b(req) }

func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}

func live() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
