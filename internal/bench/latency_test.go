// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A series is one way to sign, at one server.
type series struct {
	name  string
	kind  transporttest.Kind // of the server; a stub that verifies nothing has none
	stub  bool
	tpm   bool
	ahead time.Duration

	took    []time.Duration
	begun   []time.Time // when each request was made
	signed  func() int
	refused func() int
	twice   int // of the jtis at the server
	sent    int // of those that were signed ahead
	inVain  int
}

// stub answers with a token and a new challenge, and reads nothing.
func stub() http.Handler {
	var n atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(transport.HeaderChallenge, fmt.Sprint("challenge-", n.Add(1)))
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"t","token_type":"Bearer","expires_in":300}`)
	})
}

// run makes requests with a fixed time from one to the next.
func (s *series) run(t *testing.T, requests int, pace time.Duration) {
	var store keystore.Store = softkey.New()
	s.signed = func() int { return 0 }
	if s.tpm {
		chip, calls := newChip(t)
		store, s.signed = chip, func() int { return calls.Count(tpm2.TPMCCSign) }
	}
	server := transporttest.New(t, transporttest.Config{Policy: transporttest.Policy{
		Kind: s.kind, Offer: transporttest.OfferAlways, NoRandomRefusals: true,
	}})
	metadata := &client.Metadata{
		Issuer: server.Issuer, TokenEndpoint: server.Endpoint(transporttest.Token), ChallengeEndpoint: server.Endpoint(transporttest.Challenge),
	}
	if s.stub {
		site := httptest.NewServer(stub())
		t.Cleanup(site.Close)
		metadata = &client.Metadata{Issuer: site.URL, TokenEndpoint: site.URL + "/token"}
	}
	attester := attesterFunc(func(_ context.Context, req client.AttestRequest) (string, error) {
		return server.Attester.Attest(req.Key.Public()), nil
	})
	c, err := client.New(t.Context(), client.Config{
		Issuer: metadata.Issuer, ClientID: "client", Store: store, Attester: attester, Metadata: metadata, SignAhead: s.ahead,
		Base: new(http.Transport),
	})
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	begun := s.signed()
	h, next := c.HTTPClient(), time.Now()
	for i := range requests {
		time.Sleep(time.Until(next))
		next = next.Add(pace)
		start := time.Now()
		resp, err := h.Post(metadata.TokenEndpoint, "application/x-www-form-urlencoded", strings.NewReader("grant_type=client_credentials"))
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if i > 0 { // the first one opens the connection and gets the attestation, with any key
			s.took, s.begun = append(s.took, time.Since(start)), append(s.begun, start)
		}
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", s.name, resp.StatusCode)
		}
	}
	if s.ahead > 0 { // an idle hour, as far as there are signatures in it
		time.Sleep(s.ahead + time.Second)
	}
	health := c.Health()
	s.sent, s.inVain = health.SentAhead, health.UnusedAhead
	if n := s.signed() - begun; s.tpm && n != requests+s.inVain+server.Refused() {
		t.Errorf("%s: %d signatures for %d requests, %d in vain and %d refused", s.name, n, requests, s.inVain, server.Refused())
	}
	s.refused = server.Refused
	seen := make(map[string]bool)
	for _, r := range server.Requests(transporttest.Token) {
		if r.PoP == nil || seen[r.PoP.ID] {
			s.twice++
			continue
		}
		seen[r.PoP.ID] = true
	}
}

type attesterFunc func(context.Context, client.AttestRequest) (string, error)

func (f attesterFunc) Attest(ctx context.Context, req client.AttestRequest) (string, error) {
	return f(ctx, req)
}

// TestLatency: with SignAhead a request does not wait for the chip, none is refused, no
// jti is sent twice, and what is signed in vain when requests cease is one signature.
func TestLatency(t *testing.T) {
	requests, pace, ahead := 8, 500*time.Millisecond, 3*time.Second
	if isMeasuring() {
		requests, pace, ahead = 121, time.Second, 10*time.Second
	}
	all := []*series{
		{name: "software key, stub", stub: true},
		{name: "TPM, stub", stub: true, tpm: true},
		{name: "TPM with SignAhead, stub", stub: true, tpm: true, ahead: ahead},
		{name: "software key, server of reusable challenges"},
		{name: "TPM with SignAhead, server of reusable challenges", tpm: true, ahead: ahead},
		{name: "TPM with SignAhead, server of single-use challenges", kind: transporttest.SingleUse, tpm: true, ahead: ahead},
	}
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * pace / time.Duration(len(all))) // not at the same moment
			s.run(t, requests, pace)
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, s := range all {
		t.Logf("%-52s P50 %8.2f ms  P99 %8.2f ms  %d requests, %d signed ahead, %d in vain, %d refused", s.name,
			ms(quantile(s.took, 0.5)), ms(quantile(s.took, 0.99)), requests, s.sent, s.inVain, s.refused())
		if s.refused() != 0 || s.twice != 0 {
			t.Errorf("%s: %d refused, %d jtis twice", s.name, s.refused(), s.twice)
		}
		if s.ahead > 0 && (s.sent < requests*9/10-1 || s.inVain > 1+requests/10) {
			t.Errorf("%s: %d of %d were signed ahead, %d in vain", s.name, s.sent, requests, s.inVain)
		}
		if with, without := quantile(s.took, 0.5), quantile(all[1].took, 0.5); s.ahead > 0 && 2*with > without {
			t.Errorf("%s: P50 %s, and %s without", s.name, with, without)
		}
	}
	if isMeasuring() {
		drawLatency(t, all[:3])
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
