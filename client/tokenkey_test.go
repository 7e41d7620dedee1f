// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestDPoPThumbprintC47: the value of dpop_jkt is that of the proofs which go to
// the token and the pushed authorization request endpoint.
func TestDPoPThumbprintC47(t *testing.T) {
	for name, test := range map[string]struct {
		dpop     client.DPoP
		method   transport.Method
		combined bool
		bound    string // to which key: "", "instance" or "own"
	}{
		"off":                            {client.DPoPOff, transport.MethodPoP, false, ""},
		"off, by auto":                   {client.DPoPOff, "", false, ""},
		"own key":                        {client.DPoPOwnKey, transport.MethodPoP, false, "own"},
		"own key, by auto":               {client.DPoPOwnKey, "", false, "own"},
		"instance key":                   {client.DPoPInstanceKey, transport.MethodPoP, false, "instance"},
		"combined":                       {client.DPoPOff, transport.MethodDPoP, true, "instance"},
		"combined by auto":               {client.DPoPOff, "", true, "instance"},
		"combined, own key":              {client.DPoPOwnKey, transport.MethodDPoP, true, "instance"},
		"combined by auto, own key":      {client.DPoPOwnKey, "", true, "instance"},
		"combined, instance key":         {client.DPoPInstanceKey, transport.MethodDPoP, true, "instance"},
		"combined by auto, instance key": {client.DPoPInstanceKey, "", true, "instance"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{Combined: test.combined, Nonces: test.combined})
			c := r.client(t, func(cfg *client.Config) { cfg.DPoP, cfg.Method = test.dpop, test.method })
			var thumbprint string
			for range 2 {
				var err error
				if thumbprint, err = c.DPoPThumbprint(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if n := r.total(); n != 1 || r.Count(transporttest.Metadata) != 1 || r.store.signed.Load() != 0 {
				t.Errorf("%d requests, %d signatures, want one request for metadata", n, r.store.signed.Load())
			}
			instance, _ := keystore.Thumbprint(c.Key().Public())
			if (thumbprint == "") != (test.bound == "") || (thumbprint == instance) != (test.bound == "instance") {
				t.Errorf("thumbprint %q, that of the instance key is %s, want that of key %q", thumbprint, instance, test.bound)
			}

			config := oauth2.Config{ClientID: r.ClientID}
			request := config.AuthCodeURL("state", oauth2.SetAuthURLParam("dpop_jkt", thumbprint))
			pushed, err := url.ParseQuery(strings.TrimPrefix(request, "?"))
			if err != nil || pushed.Get("dpop_jkt") != thumbprint {
				t.Fatalf("authorization request %s, %v", request, err)
			}
			if code := postForm(t, c.HTTPClient(), r.Endpoint(transporttest.PAR), pushed); code != 201 {
				t.Errorf("PAR answered %d", code)
			}
			token, err := c.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, request := range r.Requests(transporttest.PAR, transporttest.Token) {
				if request.DPoP == nil {
					if thumbprint != "" {
						t.Errorf("%s request without a proof", request.Endpoint)
					}
				} else if got := proofKey(t, request); got != thumbprint {
					t.Errorf("%s request with a proof by %s, the thumbprint is %q", request.Endpoint, got, thumbprint)
				}
			}
			if stored, err := c.Bind(token); err != nil || stored.DPoPThumbprint != thumbprint {
				t.Errorf("Bind says %q, %v, want %q", stored.DPoPThumbprint, err, thumbprint)
			}
		})
	}
}

func TestDPoPThumbprintErrorsC47(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	r.edit(transporttest.Metadata, func(m map[string]any) { m["issuer"] = "https://other.example.com" })
	c := r.client(t, ownKey)
	if got, err := c.DPoPThumbprint(t.Context()); got != "" || !errors.Is(err, client.ErrMetadata) {
		t.Errorf("metadata of another issuer: %q, %v, want ErrMetadata", got, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.DPoPThumbprint(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	c.Close()
	if _, err := c.DPoPThumbprint(t.Context()); !errors.Is(err, client.ErrClosed) {
		t.Errorf("closed: %v, want ErrClosed", err)
	}
}
