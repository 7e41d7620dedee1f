// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	tpmtransport "github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

// slowly has a TPM take as long for a signature as that of a PC.
type slowly struct{ tpmtest.Device }

func (d slowly) Dial(ctx context.Context) (tpmtransport.TPMCloser, error) {
	conn, err := d.Device.Dial(ctx)
	return slowConn{conn}, err
}

type slowConn struct{ tpmtransport.TPMCloser }

func (c slowConn) Send(command []byte) ([]byte, error) {
	if tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == tpm2.TPMCCSign {
		time.Sleep(200 * time.Millisecond)
	}
	return c.TPMCloser.Send(command)
}

// TestOIDCProviderSignAhead: proofs that were signed ahead are taken, and each of them is
// sent; one signature is in vain. With BENCH set, it prints how long requests take at one
// a second, beside a key in software.
func TestOIDCProviderSignAhead(t *testing.T) {
	requests, pace := 8, 400*time.Millisecond
	if os.Getenv("BENCH") != "" {
		requests, pace = 120, time.Second
	}
	attester := newAttester(t)
	p := startProvider(t, current, attester.jwk)
	chip := tpmtest.Record(slowly{tpmtest.SWTPM(t, tpmtest.SWConfig{})})
	run := func(store keystore.Store, ahead time.Duration) (c *client.Client, took []time.Duration) {
		c = configured(t, p, attester, client.Config{ClientID: "abca-client", Store: store, SignAhead: ahead})
		server, err := c.Metadata(t.Context())
		if err != nil {
			t.Error(err)
			return c, nil
		}
		next := time.Now()
		for i := range requests + 1 {
			time.Sleep(time.Until(next))
			next = next.Add(pace)
			start := time.Now()
			resp, err := c.HTTPClient().PostForm(server.TokenEndpoint, url.Values{"grant_type": {"client_credentials"}, "scope": {"read"}})
			if err != nil {
				t.Error(err)
				return c, nil
			}
			_, err = io.Copy(io.Discard, resp.Body)
			if resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%s, %v", resp.Status, err)
			}
			if i > 0 { // the first one gets the attestation and a challenge
				took = append(took, time.Since(start))
			}
		}
		slices.Sort(took)
		return c, took
	}
	store := openTPM(t, chip)
	var wg sync.WaitGroup
	var c *client.Client
	var with, software []time.Duration
	wg.Go(func() { c, with = run(store, 10*time.Second) })
	wg.Go(func() { time.Sleep(pace / 2); _, software = run(softkey.New(), 0) })
	wg.Wait()
	if t.Failed() {
		return
	}
	c.Close()
	if h := c.Health(); h.SentAhead < requests*3/4 || h.UnusedAhead > 1 {
		t.Errorf("%d of %d requests had proofs that were signed ahead, %d in vain", h.SentAhead, requests, h.UnusedAhead)
	}
	if n := chip.Count(tpm2.TPMCCSign); n > requests+2 {
		t.Errorf("%d signatures for %d requests", n, requests+1)
	}
	p.check(t, map[string]int{metadata: 2, challenge: 2, token: 2 * (requests + 1)}) // none was refused
	at := func(of []time.Duration, part float64) time.Duration {
		return of[min(int(part*float64(len(of))), len(of)-1)]
	}
	t.Logf("P50 %s, P99 %s with SignAhead on a TPM of 200 ms; %s, %s with a key in software", at(with, 0.5), at(with, 0.99), at(software, 0.5), at(software, 0.99))
}
