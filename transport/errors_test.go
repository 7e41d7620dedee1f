// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

func noBody() (io.ReadCloser, error) { return nil, errTest }

// secrets collects what must never be seen, of all requests so far.
func (f *fixture) secrets() []string {
	out := []string{"very-secret"}
	for _, r := range f.server.Requests() {
		for _, name := range []string{transport.HeaderAttestation, transport.HeaderAttestationPoP, transport.HeaderDPoP} {
			for _, value := range r.Header.Values(name) {
				out = append(out, strings.Split(value, ".")[2]) // the signature
			}
		}
		if r.PoP != nil {
			out = append(out, r.PoP.Challenge, r.PoP.ID)
		}
		if r.Offered() != "" {
			out = append(out, r.Offered())
		}
	}
	return out
}

func (f *fixture) noSecretIn(text string) {
	f.t.Helper()
	for _, secret := range f.secrets() {
		if secret != "" && strings.Contains(text, secret) {
			f.t.Errorf("%.30q is in: %.300s", secret, text)
		}
	}
}

// laterError is the error of a source that says that it may pass.
type laterError struct{}

func (laterError) Error() string   { return "later" }
func (laterError) Temporary() bool { return true }

// failsAnew is a source whose attestation the server wants replaced, which it
// cannot.
func failsAnew(cause error) func(*fixture, *transport.Config) {
	return func(f *fixture, c *transport.Config) {
		source := c.Attestations
		c.Attestations = sourceFunc(func(ctx context.Context, rejected string, signingAlgs []string) (string, error) {
			if rejected != "" {
				return "", cause
			}
			attestation, err := source.Attestation(ctx, "", nil)
			f.server.Deny(attestation)
			return attestation, err
		})
	}
}

// TestErrorsAreTypedAndHoldNoSecret: contract line 14.
func TestErrorsAreTypedAndHoldNoSecret(t *testing.T) {
	html := func(w http.ResponseWriter, r transporttest.Request) bool {
		if r.Endpoint == transporttest.Challenge {
			fmt.Fprint(w, "<html>very-secret</html>")
		}
		return r.Endpoint == transporttest.Challenge
	}
	tests := []struct {
		name   string
		policy policy
		edit   func(*fixture, *transport.Config)
		change func(*http.Request)
		step   transport.Step
		send   int
		code   string // of the refusal before
		is     error
		temp   bool
	}{
		{name: "attestation", edit: func(_ *fixture, c *transport.Config) {
			c.Attestations = sourceFunc(func(context.Context, string, []string) (string, error) { return "", errTest })
		}, step: "get attestation", send: 1, is: errTest},
		{name: "attestation, later", edit: func(_ *fixture, c *transport.Config) {
			c.Attestations = sourceFunc(func(context.Context, string, []string) (string, error) { return "", laterError{} })
		}, step: "get attestation", send: 1, is: laterError{}, temp: true},
		{name: "attestation that is none", edit: func(_ *fixture, c *transport.Config) {
			c.Attestations = sourceFunc(func(context.Context, string, []string) (string, error) { return "very-secret\r\nX: y", nil })
		}, step: "get attestation", send: 1},
		{name: "challenge", policy: policy{Intercept: html}, step: "get challenge", send: 1, temp: true},
		{name: "challenge endpoint's reason", edit: func(_ *fixture, c *transport.Config) {
			c.Base = roundTripper(func(*http.Request) (*http.Response, error) {
				return &http.Response{Status: "500 very-secret", StatusCode: 500, Body: http.NoBody}, nil
			})
		}, step: "get challenge", send: 1, temp: true},
		{name: "challenge endpoint cut", policy: policy{Cut: true}, step: "get challenge", send: 1, temp: true},
		{name: "key lost", edit: func(f *fixture, c *transport.Config) {
			c.Key = failingKey{f.key, fmt.Errorf("%w: x", keystore.ErrKeyLost)}
		}, step: "sign", send: 1, is: keystore.ErrKeyLost},
		{name: "key unavailable", edit: func(f *fixture, c *transport.Config) { c.Key = failingKey{f.key, keystore.ErrUnavailable} },
			step: "sign", send: 1, is: keystore.ErrUnavailable, temp: true},
		{name: "cut", policy: policy{NoEndpoint: true, Cut: true}, step: "send", send: 1, temp: true},
		{name: "retry's body", policy: policy{NoEndpoint: true}, change: func(r *http.Request) { r.GetBody = noBody },
			step: "prepare retry", send: 2, code: "use_attestation_challenge", is: errTest},
		{name: "retry's attestation", edit: failsAnew(errTest),
			step: "prepare retry", send: 2, code: "use_fresh_attestation", is: errTest},
		{name: "retry's attestation, temporarily", edit: failsAnew(keystore.ErrUnavailable),
			step: "prepare retry", send: 2, code: "use_fresh_attestation", is: keystore.ErrUnavailable, temp: true},
		{name: "header too large", edit: func(_ *fixture, c *transport.Config) {
			c.Attestations = sourceFunc(func(context.Context, string, []string) (string, error) { return strings.Repeat("a", 17<<10), nil })
		}, step: "sign", send: 1, is: transport.ErrHeaderTooLarge},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, test.policy)
			f.Transport = f.another(func(c *transport.Config) {
				if test.edit != nil {
					test.edit(f, c)
				}
			})
			req := f.request(t.Context())
			if test.change != nil {
				test.change(req)
			}
			err := f.fail(req)
			var own *transport.Error
			if !errors.As(err, &own) {
				t.Fatalf("%T %v", err, err)
			}
			thumbprint, _ := keystore.Thumbprint(f.key.Public())
			if own.Audience != f.server.Issuer || own.Thumbprint != thumbprint || (own.Step != test.step && test.step != "") || own.Err == nil || own.Code != test.code || (own.Status == 400) != (test.code != "") {
				t.Errorf("%#v", own)
			}
			if !strings.Contains(err.Error(), test.code) || test.is != nil && !strings.Contains(err.Error(), test.is.Error()) {
				t.Errorf("%q does not say %q and %v", err, test.code, test.is)
			}
			if own.Send != test.send && test.send != 0 {
				t.Errorf("send %d, want %d", own.Send, test.send)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%v is not %v", err, test.is)
			}
			if own.Temporary() != test.temp {
				t.Errorf("Temporary is %v", own.Temporary())
			}
			if text := err.Error(); !strings.HasPrefix(text, "transport: ") || len(text) > 500 {
				t.Errorf("text %q", text)
			}
			f.noSecretIn(fmt.Sprintf("%v %+v", err, own))
		})
	}
}

// TestTemporary: which refusals of a server may pass, and how they read.
func TestTemporary(t *testing.T) {
	for _, test := range []struct {
		err  transport.Error
		temp bool
		text string
	}{
		{transport.Error{Step: "answer", Status: 400, Code: "invalid_client"}, false, `400 "invalid_client"`},
		{transport.Error{Step: "answer", Status: 400, Code: "slow_down"}, true, `400 "slow_down"`},
		{transport.Error{Step: "answer", Status: 400, Code: "temporarily_unavailable"}, true, "temporarily_unavailable"},
		{transport.Error{Step: "answer", Status: 400, Code: "use_attestation_challenge"}, true, "use_attestation_challenge"},
		{transport.Error{Step: "answer", Status: 400, Code: "use_fresh_attestation"}, true, "use_fresh_attestation"},
		{transport.Error{Step: "answer", Status: 401, Code: "use_dpop_nonce"}, true, "use_dpop_nonce"},
		{transport.Error{Step: "get metadata", Status: 408, Audience: "https://as", Err: errTest}, true, "get metadata (https://as): " + errTest.Error()},
		{transport.Error{Step: "answer", Status: 503}, true, "503 Service Unavailable without an OAuth error code"},
		{transport.Error{Step: "answer", Status: 429, Code: "x"}, true, "429"},
		{transport.Error{Step: "answer", Status: 401, Code: strings.Repeat("x", 5000)}, false, "401"},
		{transport.Error{Step: "send", Err: context.Canceled}, false, "context canceled"},
		{transport.Error{Step: "send", Err: fmt.Errorf("x: %w", transport.ErrRedirect)}, false, "redirect"},
		{transport.Error{Step: "send", Err: transport.ErrHeaderTooLarge}, false, "too large"},
		{transport.Error{Step: "get challenge", Err: transport.ErrClosed}, false, "closed"},
		{transport.Error{Step: "sign", Err: context.DeadlineExceeded}, true, "deadline"},
		{transport.Error{Step: "sign", Err: keystore.ErrLockedOut}, true, "locked out"},
		{transport.Error{Step: "sign", Err: keystore.ErrAuth}, false, "authorization failed"},
		{transport.Error{Step: "get attestation", Err: errTest}, false, errTest.Error()},
		{transport.Error{Step: "get attestation", Err: &transport.Error{Status: 503}}, true, "503"},
	} {
		if got := test.err.Temporary(); got != test.temp {
			t.Errorf("Temporary of %v is %v", &test.err, got)
		}
		if text := test.err.Error(); !strings.Contains(text, test.text) || len(text) > 300 {
			t.Errorf("%.400q does not say %q", text, test.text)
		}
	}
}
