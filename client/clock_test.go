// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// dated gives each response the time of a clock, in the Date field.
type dated struct {
	http.RoundTripper
	now   func() time.Time
	delay time.Duration // of fake time
	age   string
}

func (d dated) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := d.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	pass(d.delay)
	resp.Header.Set("Date", d.now().UTC().Format(http.TimeFormat))
	if d.age != "" {
		resp.Header.Set("Age", d.age)
	}
	return resp, nil
}

// The strict server takes "iat" up to 15 s from its own time, which tells
// whether the client has learnt that.
func TestClockFollowsServer(t *testing.T) {
	for name, test := range map[string]struct {
		device time.Duration // the device's clock, relative to the server's
		delay  time.Duration // of responses
		age    string
		plain  bool // no TLS
		ok     bool
		asked  bool // for the time, since the attestation is of the future; in vain
		again  int  // requests that were repeated, since they had no answer after 5 s
	}{
		"right":                      {ok: true},
		"a second slow":              {device: -time.Second, ok: true},
		"a minute slow":              {device: -time.Minute, ok: true},
		"a minute fast":              {device: time.Minute, ok: true},
		"three days slow":            {device: -72 * time.Hour, ok: true},
		"three days fast":            {device: 72 * time.Hour, ok: true},
		"almost seven days slow":     {device: -7*24*time.Hour + time.Minute, ok: true},
		"more than seven days slow":  {device: -7*24*time.Hour - time.Minute, ok: true},
		"more than seven days fast":  {device: 7*24*time.Hour + time.Minute, ok: true},
		"years fast":                 {device: 3 * 365 * 24 * time.Hour, ok: true},
		"never set":                  {device: -56 * 365 * 24 * time.Hour, ok: true},
		"a minute slow, without TLS": {device: -time.Minute, plain: true, ok: false, asked: true},
		"a minute slow, from cache":  {device: -time.Minute, age: "3600", ok: false, asked: true},
		"a minute slow, age 0":       {device: -time.Minute, age: "0", ok: true},
		"a minute slow, slow net":    {device: -time.Minute, delay: 6 * time.Second, ok: true, again: 3},
		"right, slow net":            {delay: 14 * time.Second, ok: true, again: 3},
		"a minute slow, net of 4 s":  {device: -time.Minute, delay: 4 * time.Second, ok: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				base := http.RoundTripper(dated{inProcess{r}, r.clock.now, test.delay, test.age})
				if !test.plain {
					base = overTLS{base}
				}
				r.Attester.Lifetime = 30 * 24 * time.Hour
				c := r.client(t, func(cfg *client.Config) {
					cfg.Base = base
					cfg.Clock = func() time.Time { return r.clock.now().Add(test.device) }
				})
				err := grant(t.Context(), c)
				if (err == nil) != test.ok {
					t.Errorf("token: %v, want ok = %t", err, test.ok)
				}
				wants := 3 + test.again
				if test.asked {
					wants++
				}
				if n := r.total(); n != wants {
					t.Errorf("%d requests, want %d: the time comes with the first", n, wants)
				}
				pass(time.Minute) // second attempts end
			})
		})
	}
}

func TestClockThatIsSetLater(t *testing.T) {
	for name, wrong := range map[string]time.Duration{
		"by a minute":   -time.Minute,
		"by an hour":    -time.Hour, // the life of an attestation
		"by three days": -72 * time.Hour,
		"from 1970":     -56 * 365 * 24 * time.Hour,
		"back":          time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			device := wrong
			c := r.client(t, func(cfg *client.Config) {
				cfg.Base = overTLS{dated{inProcess{r}, r.clock.now, 0, ""}}
				cfg.Clock = func() time.Time { return r.clock.now().Add(device) }
			})
			if err := grant(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			device = 0                // NTP has come up: the correction is wrong now
			_ = grant(t.Context(), c) // may fail, and teach
			for range 2 {
				if err := grant(t.Context(), c); err != nil {
					t.Errorf("the clock is right, and the client does not notice: %v", err)
				}
			}
		})
	}
}

func TestClockDoesNotFollowOthers(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	site := newSite()
	site.set("https://api.example.com/v1/x", text("{}"))
	wrong := func() time.Time { return r.clock.now().Add(-5 * 24 * time.Hour) }
	c := r.client(t, func(cfg *client.Config) {
		cfg.Base = overTLS{byHost{"api.example.com": dated{inProcess{site}, wrong, 0, ""}, "": dated{inProcess{r}, r.clock.now, 0, ""}}}
		cfg.Resources = []client.Resource{{Identifier: "https://api.example.com/v1", Attestation: client.AttestAlways}}
	})
	for _, url := range []string{"https://api.example.com/v1/x", "https://api.example.com/other"} {
		resp, err := c.HTTPClient().Get(url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if err := grant(t.Context(), c); err != nil {
		t.Errorf("a resource with a wrong clock has moved ours: %v", err)
	}
}

// byHost is a network of hosts; "" is any other.
type byHost map[string]http.RoundTripper

func (b byHost) RoundTrip(req *http.Request) (*http.Response, error) {
	if host, ok := b[req.URL.Hostname()]; ok {
		return host.RoundTrip(req)
	}
	return b[""].RoundTrip(req)
}

func TestAttesterIsToldTheRightTime(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	self := client.SelfAttester{Key: newKey(t, "ES256")}
	var expiry time.Time
	c := r.client(t, func(cfg *client.Config) {
		cfg.Base = overTLS{dated{inProcess{r}, r.clock.now, 0, ""}}
		cfg.Clock = func() time.Time { return r.clock.now().Add(-time.Hour) }
		cfg.Attester = &testAttester{attest: func(ctx context.Context, req client.AttestRequest, _ int) (string, error) {
			attestation, err := self.Attest(ctx, req)
			var claims struct {
				Expiry int64 `json:"exp"`
			}
			if err := json.Unmarshal([]byte(payload(attestation)), &claims); err != nil {
				t.Error(err)
			}
			expiry = time.Unix(claims.Expiry, 0)
			return attestation, err
		}}
	})
	_ = grant(t.Context(), c) // this server does not know the self-attester
	if want := r.clock.now().Add(5 * time.Minute); !expiry.Equal(want) {
		t.Errorf("self-attestation until %v, want %v by the server's clock", expiry, want)
	}
}

// slowKey takes its time, and one signature after the other, as a TPM does. It
// checks that what is signed was made when its turn came.
type slowKey struct {
	keystore.Key
	t    *testing.T
	turn chan struct{}
}

func (k slowKey) Sign(ctx context.Context, signingInput []byte) ([]byte, error) {
	k.turn <- struct{}{}
	defer func() { <-k.turn }()
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(string(signingInput), ".")[1])
	if err != nil {
		k.t.Error(err)
	}
	var times struct {
		IssuedAt int64 `json:"iat"`
	}
	if err := json.Unmarshal(claims, &times); err != nil {
		k.t.Error(err)
	}
	if age := time.Since(time.Unix(times.IssuedAt, 0)); age > time.Second {
		k.t.Errorf("signing a JWT of %v ago: it waited in the key's queue", age)
	}
	pass(5 * time.Second)
	return k.Key.Sign(ctx, signingInput)
}

func TestOneSignatureAtATimeForOneKey(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.now = time.Now
		r.Set(func(p *transporttest.Policy) { p.Window = time.Hour })
		site := newSite()
		site.set("https://api.example.com/v1/x", text("{}"))
		c := r.client(t, func(cfg *client.Config) {
			cfg.Key, cfg.Store = slowKey{newKey(t, "ES256"), t, make(chan struct{}, 1)}, nil
			cfg.Clock = nil
			cfg.Base = byHost{"api.example.com": inProcess{site}, "": inProcess{r}}
			cfg.Resources = []client.Resource{{Identifier: "https://api.example.com/v1", Attestation: client.AttestAlways}}
			cfg.DPoP = client.DPoPInstanceKey
		})
		results := make(chan error, 4)
		for i := range cap(results) {
			go func() {
				if i%2 == 0 {
					results <- grant(t.Context(), c)
					return
				}
				resp, err := c.HTTPClient().Get("https://api.example.com/v1/x")
				if err == nil {
					resp.Body.Close()
				}
				results <- err
			}()
		}
		for range cap(results) {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
	})
}
