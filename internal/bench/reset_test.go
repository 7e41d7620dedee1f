// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestReset: a TPM that is reset, or loses its power, after a proof was signed ahead, or
// while it is, has the request made as without.
func TestReset(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, kind := range []transporttest.Kind{transporttest.Reusable, transporttest.SingleUse} {
		faults := tpmtest.Inject(t, sim)
		store, err := tpm.Open(t.Context(), tpm.Config{Dial: faults.Dial, Dir: t.TempDir(), Exclusive: true})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		server := transporttest.New(t, transporttest.Config{Policy: transporttest.Policy{
			Kind: kind, Offer: transporttest.OfferAlways, NoRandomRefusals: true,
		}})
		ahead := make(chan error, 100) // what was signed ahead
		c, err := client.New(t.Context(), client.Config{
			Issuer: server.Issuer, ClientID: "client", Store: store, SignAhead: 10 * time.Second, Base: new(http.Transport),
			Attester: attesterFunc(func(_ context.Context, req client.AttestRequest) (string, error) {
				return server.Attester.Attest(req.Key.Public()), nil
			}),
			Metadata: &client.Metadata{
				Issuer: server.Issuer, TokenEndpoint: server.Endpoint(transporttest.Token), ChallengeEndpoint: server.Endpoint(transporttest.Challenge),
			},
			Trace: &client.Trace{Trace: transport.Trace{Signature: func(_ context.Context, e transport.TraceEvent) {
				if e.Ahead {
					ahead <- e.Err
				}
			}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		requests := 0
		post := func() {
			t.Helper()
			requests++
			resp, err := c.HTTPClient().Post(server.Endpoint(transporttest.Token), "application/x-www-form-urlencoded", strings.NewReader("grant_type=client_credentials"))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, _ = io.Copy(io.Discard, resp.Body); resp.StatusCode != http.StatusOK {
				t.Errorf("status %d", resp.StatusCode)
			}
		}
		signed := func() {
			t.Helper()
			select {
			case err := <-ahead:
				if err != nil {
					t.Errorf("signed ahead: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("nothing is signed ahead")
			}
		}
		for name, reset := range map[string]func(){"reset": sim.Reset, "power off": sim.PowerOff} {
			post()
			signed()
			reset()
			post() // with what was signed before
			signed()

			block := faults.Add(tpmtest.Fault{Command: tpm2.TPMCCSign, Block: true})
			post()
			<-block.Blocked() // the signature for the next one
			reset()
			block.Release()
			post()
			signed()
			signed()
			if n := server.Refused(); n != 0 {
				t.Errorf("%s, %v: %d refused", name, kind, n)
			}
			post()
			signed()
		}
		if h := c.Health(); h.SentAhead != requests-1 || h.UnusedAhead != 0 {
			t.Errorf("%d of %d were signed ahead, %d in vain", h.SentAhead, requests, h.UnusedAhead)
		}
	}
}
