// SPDX-License-Identifier: Apache-2.0

package httpclients_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/clienttest"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

const retries = 8

// retrying returns go-retryablehttp with its own policy, in a hurry, and counts its tries.
func retrying(over *http.Client) (*retryablehttp.Client, *int) {
	tries := new(int)
	c := retryablehttp.NewClient()
	c.HTTPClient, c.Logger = over, nil
	c.RetryMax, c.RetryWaitMin, c.RetryWaitMax = retries, time.Millisecond, time.Millisecond
	c.RequestLogHook = func(retryablehttp.Logger, *http.Request, int) { *tries++ }
	return c, tries
}

// wrongTries is the TPM's count of wrong PINs.
func wrongTries(t *testing.T, device tpmtest.Device) uint32 {
	t.Helper()
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTLockoutCounter), PropertyCount: 1}.Execute(tpmtest.Dial(t, device))
	if err != nil {
		t.Fatal(err)
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		t.Fatal(err)
	}
	return list.TPMProperty[0].Value
}

// TestWrongPIN (A5): a library that tries again, whatever the error, sends the TPM each
// wrong PIN once. The right one then works.
func TestWrongPIN(t *testing.T) {
	sim := tpmtest.Simulator(t)
	pin := "right"
	store, err := tpm.Open(t.Context(), tpm.Config{
		Dial: sim.Dial, Dir: t.TempDir(), PIN: func(context.Context, string) ([]byte, error) { return []byte(pin), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.CreateKey(t.Context(), "key", tpm.KeyOptions{PIN: true}); err != nil {
		t.Fatal(err)
	}
	services := clienttest.New(t, clienttest.Config{})
	cfg := services.ClientConfig()
	cfg.Store, cfg.Key, cfg.KeyName = store, nil, "key"
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	post := func(c *retryablehttp.Client) error {
		resp, err := c.PostForm(services.Server.Endpoint(transporttest.Token), url.Values{"grant_type": {"client_credentials"}})
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	library, tries := retrying(c.HTTPClient())
	for n, wrong := range []string{"wrong", "wrong again"} {
		pin, *tries = wrong, 0
		if err := post(library); !errors.Is(err, keystore.ErrAuth) {
			t.Errorf("%s: %v, want ErrAuth", wrong, err)
		}
		if got := wrongTries(t, sim); *tries != retries+1 || got != uint32(n+1) {
			t.Errorf("%s: %d tries of the library, and %d of the TPM, want %d and %d", wrong, *tries, got, retries+1, n+1)
		}
	}

	// What the package documentation advises.
	careful, tries := retrying(c.HTTPClient())
	careful.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		var failed *transport.Error
		if errors.As(err, &failed) && !failed.Temporary() {
			return false, err
		}
		return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
	}
	if err := post(careful); !errors.Is(err, keystore.ErrAuth) || *tries != 1 {
		t.Errorf("with Temporary: %v, %d tries, want ErrAuth and 1", err, *tries)
	}

	pin = "right"
	if err := post(library); err != nil {
		t.Errorf("the right PIN: %v", err)
	}
}

// TestRetryAround: a server that is busy is asked again with a new proof each time.
func TestRetryAround(t *testing.T) {
	services := clienttest.New(t, clienttest.Config{})
	busy := 3
	services.Server.Set(func(p *transporttest.Policy) {
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			if r.Endpoint != transporttest.Token || busy == 0 {
				return false
			}
			busy--
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
	})
	c, err := client.New(t.Context(), services.ClientConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	library, tries := retrying(c.HTTPClient())
	resp, err := library.PostForm(services.Server.Endpoint(transporttest.Token), url.Values{"grant_type": {"client_credentials"}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	jtis := make(map[string]bool)
	for _, r := range services.Server.Requests(transporttest.Token) {
		jtis[r.PoP.ID] = true
	}
	if resp.StatusCode != 200 || *tries != 4 || len(jtis) != 4 {
		t.Errorf("status %d, %d tries, %d proofs, want 200, 4 and 4", resp.StatusCode, *tries, len(jtis))
	}
}

// TestRetryAsBase: in Config.Base such a library sends one proof twice, and a server that
// remembers proofs refuses it. The documentation says so; should this become another
// error, or none, it has to say that.
func TestRetryAsBase(t *testing.T) {
	services := clienttest.New(t, clienttest.Config{})
	dead := 1
	services.Server.Set(func(p *transporttest.Policy) {
		p.After = func(r transporttest.Request) {
			if r.Endpoint == transporttest.Token && dead > 0 {
				dead--
				panic(http.ErrAbortHandler)
			}
		}
	})
	library, _ := retrying(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}})
	cfg := services.ClientConfig()
	cfg.Base = &retryablehttp.RoundTripper{Client: library}
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Token(t.Context())
	var refused *transport.Error
	if !errors.As(err, &refused) || refused.Code != "invalid_client" {
		t.Errorf("got %v, want invalid_client", err)
	}
	got := services.Server.Requests(transporttest.Token)
	if len(got) != 2 || got[0].PoP.ID != got[1].PoP.ID || !strings.Contains(got[1].Reason, "jti seen before") {
		t.Errorf("the server got %d requests: %v", len(got), got)
	}
}
