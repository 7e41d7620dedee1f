// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestClockOverTLS: the server takes "iat" 15 s either way, and the first token
// request is in that.
func TestClockOverTLS(t *testing.T) {
	for name, test := range map[string]struct {
		offset time.Duration
		ok     bool
		logged string
	}{
		"right":                {0, true, ""},
		"20 minutes fast":      {20 * time.Minute, true, "corrected"},
		"20 minutes slow":      {-20 * time.Minute, true, "corrected"},
		"an hour fast":         {time.Hour, true, "corrected"},
		"an hour slow":         {-time.Hour, true, "corrected"},
		"a day slow":           {-24 * time.Hour, true, "corrected"},
		"two days fast":        {48 * time.Hour, true, "corrected"},
		"two days slow":        {-48 * time.Hour, true, "corrected"},
		"almost a week fast":   {7*24*time.Hour - time.Minute, true, "corrected"},
		"more than a week":     {7*24*time.Hour + time.Minute, true, "corrected"},
		"more than a week ago": {-7*24*time.Hour - time.Minute, true, "corrected"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTLSRig(t)
			r.set(test.offset)
			r.Attester.Lifetime = 30 * 24 * time.Hour // not what is tested
			var logged lockedBuilder
			c := r.client(t, r.device, func(cfg *client.Config) { cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
			if _, err := c.Token(t.Context()); (err == nil) != test.ok {
				t.Errorf("error %v, want ok: %t", err, test.ok)
			}
			r.counts(t, 1, 1, 1)
			if text := logged.String(); test.logged == "" && strings.Contains(text, "clock") || !strings.Contains(text, test.logged) {
				t.Errorf("logged %q, want %q in it", text, test.logged)
			}
		})
	}
}

type lockedBuilder struct {
	mu sync.Mutex
	strings.Builder
}

func (b *lockedBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.Write(p)
}

// TestClockWithoutTLS: anybody can say what time it is.
func TestClockWithoutTLS(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	r.now = time.Now
	c := r.client(t, func(cfg *client.Config) {
		cfg.Base, cfg.Clock = new(http.Transport), func() time.Time { return time.Now().Add(-20 * time.Minute) }
	})
	for range 2 {
		if _, err := c.Token(t.Context()); err == nil {
			t.Error("the token was issued: the clock was corrected, or the server does not look")
		}
	}
}

// TestClock1970 is a device whose clock was never set.
func TestClock1970(t *testing.T) {
	since1970 := time.Since(time.Unix(0, 0))
	isTLS := func(err error) bool {
		var invalid x509.CertificateInvalidError
		return errors.As(err, &invalid) && invalid.Reason == x509.Expired
	}
	t.Run("is a named error", func(t *testing.T) {
		r := newTLSRig(t)
		r.set(-since1970)
		_, err := r.client(t, r.device).Token(t.Context())
		if !errors.Is(err, client.ErrClock) || !isTLS(err) {
			t.Errorf("error %v, want ErrClock", err)
		}
		r.counts(t, 0, 0, 0)
	})
	t.Run("with metadata at hand too", func(t *testing.T) {
		r := newTLSRig(t)
		r.set(-since1970)
		c := r.client(t, r.device, func(cfg *client.Config) {
			cfg.Metadata = &client.Metadata{Issuer: r.Issuer, TokenEndpoint: r.Endpoint(transporttest.Token), ChallengeEndpoint: r.Endpoint(transporttest.Challenge)}
		})
		if _, err := c.Token(t.Context()); !errors.Is(err, client.ErrClock) || !isTLS(err) {
			t.Errorf("error %v, want ErrClock", err)
		}
		r.counts(t, 0, 0, 0)
	})
	t.Run("at a resource too", func(t *testing.T) {
		r := newTLSRig(t)
		r.set(-since1970)
		c := r.client(t, r.device, func(cfg *client.Config) {
			cfg.Resources = []client.Resource{{Identifier: r.URL + "/api", Attestation: client.AttestAlways}}
		})
		resp, err := c.HTTPClient().Get(r.URL + "/api")
		if err == nil {
			resp.Body.Close()
		}
		if !errors.Is(err, client.ErrClock) || !isTLS(err) {
			t.Errorf("error %v, want ErrClock", err)
		}
		r.counts(t, 0, 0, 0)
	})
	t.Run("remedy", func(t *testing.T) {
		r := newTLSRig(t)
		r.set(-since1970)
		if _, err := r.client(t, r.floored).Token(t.Context()); err != nil {
			t.Error(err)
		}
		r.counts(t, 1, 1, 1)
	})
	t.Run("remedy, and no network", func(t *testing.T) {
		r := newTLSRig(t)
		r.set(-since1970)
		r.server.Close()
		if _, err := r.client(t, r.floored).Token(t.Context()); err == nil || errors.Is(err, client.ErrClock) {
			t.Errorf("error %v: the clock is not what is wrong", err)
		}
	})
	t.Run("remedy, then the clock is set", func(t *testing.T) {
		r := newTLSRig(t)
		r.set(-since1970)
		c := r.client(t, r.floored)
		if _, err := c.Token(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		r.set(0)
		var err error
		for _, scope := range []string{"b", "c"} { // one refusal is how it learns
			_, err = c.Token(t.Context(), scope)
		}
		if err != nil {
			t.Errorf("after the clock was set: %v", err)
		}
	})
}

// TestClockStepsAhead: while metadata is fresh and attestations live for an
// hour, the clock jumps by two.
func TestClockStepsAhead(t *testing.T) {
	r := newTLSRig(t)
	c := r.client(t, r.device)
	r.Attester.Lifetime = time.Hour
	r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
		return r.Attester.Attest(req.Key.Public(), func(claims map[string]any) { claims["exp"] = time.Now().Add(time.Hour).Unix() }), nil
	})
	if _, err := c.Token(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []time.Duration{2 * time.Hour, -2 * time.Hour, 0} {
		r.set(step)
		var err error
		for _, scope := range []string{"b", "c"} {
			_, err = c.Token(t.Context(), scope+step.String())
		}
		if err != nil {
			t.Errorf("after a step to %v: %v", step, err)
		}
	}
}

// TestClockAndExpiredAttestation: an attestation that has expired by every clock
// is an error, and the server is not asked for the time again and again.
func TestClockAndExpiredAttestation(t *testing.T) {
	r := newTLSRig(t)
	key := newKey(t, "ES256")
	expired := r.Attester.Attest(key.Public(), func(claims map[string]any) { claims["exp"] = time.Now().Add(-time.Hour).Unix() })
	c := r.client(t, r.device, func(cfg *client.Config) {
		cfg.Store, cfg.Key, cfg.Attester = nil, key, client.PushAttester{Attestation: expired}
	})
	for range 5 {
		if _, err := c.Token(t.Context()); !errors.Is(err, client.ErrInvalidAttestation) {
			t.Errorf("error %v, want ErrInvalidAttestation", err)
		}
	}
	r.counts(t, 1, 0, 0) // the metadata, whose Date confirmed the clock
}

// TestHTTPAttesterClock: a request's times are by the clock of the attester that
// judges it.
func TestHTTPAttesterClock(t *testing.T) {
	for name, offset := range map[string]time.Duration{"an hour ahead": time.Hour, "two days behind": -48 * time.Hour, "right": 0} {
		t.Run(name, func(t *testing.T) {
			var issued int64
			mux := http.NewServeMux()
			dated := func(answer string) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Date", time.Now().Add(offset).UTC().Format(http.TimeFormat))
					if r.URL.Path == "/client-attestation" {
						body := new(strings.Builder)
						_ = r.Write(body)
						_, rest, _ := strings.Cut(body.String(), `"request":"`)
						jws, _, _ := strings.Cut(rest, `"`)
						if request := transporttest.ParseProof(jws); request != nil {
							issued = request.IssuedAt
						}
					}
					text(answer)(w, r)
				}
			}
			mux.HandleFunc("/challenge", dated(`{"challenge":"c"}`))
			mux.HandleFunc("/client-attestation", dated(`{"client_attestation":"a.b.c"}`))
			server, roots := newTLSServer(t, mux)
			base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
			defer base.CloseIdleConnections()
			attester := client.HTTPAttester{URL: server.URL, Client: &http.Client{Transport: base}}
			if _, err := attester.Attest(t.Context(), client.AttestRequest{ClientID: "client", Key: newKey(t, "ES256")}); err != nil {
				t.Fatal(err)
			}
			if off := time.Until(time.Unix(issued, 0)) - offset; off.Abs() > 5*time.Second {
				t.Errorf("iat is %v off the attester's clock", off)
			}
		})
	}
}
