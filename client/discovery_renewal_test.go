// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
)

const (
	issuerURL = "https://as.example.com"
	wellKnown = issuerURL + inserted
)

// held is a page that waits until release is closed.
func held(release <-chan struct{}, page http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
			page(w, r)
		case <-r.Context().Done():
		}
	}
}

func TestDiscoveryIsSharedC48(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiscoverer(t, issuerURL)
		release := make(chan struct{})
		d.site.set(wellKnown, held(release, text(document(issuerURL, nil))))
		const callers = 32
		results := make(chan error, callers)
		for range callers {
			go func() {
				_, err := d.Endpoint(t.Context())
				results <- err
			}()
		}
		synctest.Wait()
		if n := len(d.site.visits()); n != 1 {
			t.Errorf("%d requests while %d callers wait, want 1", n, callers)
		}
		close(release)
		for range callers {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if n := len(d.site.visits()); n != 1 {
			t.Errorf("%d requests for %d callers, want 1", n, callers)
		}
	})
}

func TestDiscoveryWaitsEndAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiscoverer(t, issuerURL)
		release := make(chan struct{})
		d.site.set(wellKnown, held(release, text(document(issuerURL, nil))))
		first, cancel := context.WithCancel(t.Context())
		gaveUp, stayed := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := d.Endpoint(first)
			gaveUp <- err
		}()
		synctest.Wait() // the first caller is the one that asks
		go func() {
			_, err := d.Endpoint(t.Context())
			stayed <- err
		}()
		synctest.Wait()
		begin := time.Now()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that gave up got %v, want context.Canceled", err)
		}
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("it had to wait for %v", waited)
		}
		close(release)
		if err := <-stayed; err != nil {
			t.Errorf("the other caller got %v", err)
		}
		if n := len(d.site.visits()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

func TestDiscoveryOfSlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiscoverer(t, issuerURL)
		d.site.set(wellKnown, held(nil, nil))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := d.Token(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 3*time.Second {
			t.Errorf("error %v after %v, want the caller's deadline after 3 s", err, time.Since(begin))
		}
		// Nobody waits any more, and still it ends.
		begin = time.Now()
		if _, err := d.Endpoint(t.Context()); !errors.Is(err, client.ErrMetadata) || time.Since(begin) > time.Minute {
			t.Errorf("error %v after %v, want ErrMetadata within a minute", err, time.Since(begin))
		}
		if n := d.store.signed.Load(); n != 0 {
			t.Errorf("%d signatures made, want 0", n)
		}
	})
}

func TestDiscoveryIsTriedAgainAfterFailure(t *testing.T) {
	d := newDiscoverer(t, issuerURL)
	d.site.set(wellKnown, status(503))
	if _, err := d.Endpoint(t.Context()); !errors.Is(err, client.ErrMetadata) {
		t.Fatalf("error %v, want ErrMetadata", err)
	}
	d.site.set(wellKnown, text(document(issuerURL, nil)))
	if _, err := d.Endpoint(t.Context()); err != nil {
		t.Error(err)
	}
	if n := len(d.site.visits()); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

func TestDiscoveryRenewal(t *testing.T) {
	type step struct {
		after  time.Duration // since the step before
		page   http.HandlerFunc
		visits int // in all
		token  string
	}
	page := func(token string) http.HandlerFunc {
		return text(document(issuerURL, map[string]any{"token_endpoint": token}))
	}
	const one, two = "https://as.example.com/one", "https://as.example.com/two"
	for name, steps := range map[string][]step{
		"kept for 24 h": {
			{0, page(one), 1, one},
			{24*time.Hour - time.Second, page(two), 1, one},
			{time.Second, page(two), 2, two},
			{24*time.Hour - time.Second, page(one), 2, two},
		},
		"the old is used on": {
			{0, page(one), 1, one},
			{24 * time.Hour, status(503), 2, one},
			{5*time.Minute - time.Second, status(503), 2, one},
			{time.Second, status(503), 3, one},
			{5 * time.Minute, page(two), 4, two},
		},
		"of another issuer: the old is used on": {
			{0, page(one), 1, one},
			{25 * time.Hour, text(document("https://other.example.com", nil)), 2, one},
		},
		"not JSON: the old is used on": {
			{0, page(one), 1, one},
			{25 * time.Hour, text("<html>"), 3, one}, // two places
		},
		"moved away: the old is used on": {
			{0, page(one), 1, one},
			{25 * time.Hour, status(404), 3, one}, // two places
		},
		"no longer for us: the old is used on": {
			{0, page(one), 1, one},
			{25 * time.Hour, text(document(issuerURL, map[string]any{"token_endpoint_auth_methods_supported": []string{"private_key_jwt"}})), 2, one},
			{4 * time.Minute, text(document(issuerURL, map[string]any{"token_endpoint_auth_methods_supported": []string{"private_key_jwt"}})), 2, one},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDiscoverer(t, issuerURL)
				for i, step := range steps {
					d.clock.advance(step.after)
					d.site.set(wellKnown, step.page)
					if _, err := d.Endpoint(t.Context()); err != nil {
						t.Fatalf("step %d: %v", i, err)
					}
					synctest.Wait() // for what goes on in the background
					endpoint, err := d.Endpoint(t.Context())
					if err != nil {
						t.Fatalf("step %d: %v", i, err)
					}
					synctest.Wait()
					if n := len(d.site.visits()); endpoint.TokenURL != step.token || n != step.visits {
						t.Errorf("step %d: token endpoint %s after %d requests, want %s after %d", i, endpoint.TokenURL, n, step.token, step.visits)
					}
				}
			})
		})
	}
}

func TestDiscoveryRenewalDoesNotHoldUpCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiscoverer(t, issuerURL)
		d.site.set(wellKnown, text(document(issuerURL, nil)))
		if _, err := d.Endpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.clock.advance(25 * time.Hour)
		d.site.set(wellKnown, held(nil, nil))
		begin := time.Now()
		if _, err := d.Endpoint(t.Context()); err != nil {
			t.Error(err)
		}
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("waited %v for metadata that stalls, with usable metadata at hand", waited)
		}
	})
}

func TestMetadataOfTheCallerIsNotRenewed(t *testing.T) {
	d := newDiscoverer(t, issuerURL)
	c, err := client.New(t.Context(), client.Config{
		Issuer: issuerURL, ClientID: "client", Store: d.store, Attester: d.attester, Base: inProcess{d.site}, Clock: d.clock.now,
		Metadata: &client.Metadata{Issuer: issuerURL, TokenEndpoint: "https://as.example.com/token", DeviceAuthorizationEndpoint: "https://as.example.com/device", AuthorizationEndpoint: "https://as.example.com/authorize"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		d.clock.advance(48 * time.Hour)
		endpoint, err := c.Endpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if endpoint.TokenURL != "https://as.example.com/token" || endpoint.DeviceAuthURL != "https://as.example.com/device" || endpoint.AuthURL != "https://as.example.com/authorize" {
			t.Errorf("endpoints %+v", endpoint)
		}
	}
	if visits := d.site.visits(); len(visits) != 0 {
		t.Errorf("requests %q, want none", visits)
	}
}

func TestClockCorrectionKeepsMetadata(t *testing.T) {
	d := newDiscoverer(t, issuerURL)
	server := newTestClock()
	server.advance(72 * time.Hour) // the device is three days behind
	page := text(document(issuerURL, nil))
	d.site.set(wellKnown, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", server.now().Format(http.TimeFormat))
		page(w, r)
	})
	c, err := client.New(t.Context(), client.Config{
		Issuer: issuerURL, ClientID: "client", Store: d.store, Attester: d.attester, Base: overTLS{inProcess{d.site}}, Clock: d.clock.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		if _, err := c.Endpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(d.site.visits()); n != 1 {
		t.Errorf("%d requests for metadata, want 1", n)
	}
}

// TestReplacedAttemptIsNoFailure: that a second attempt at metadata has made room for
// another one does not say that there is none: forms still wait for the first.
func TestReplacedAttemptIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiscoverer(t, issuerURL)
		const other = "https://other.example.com/form"
		release := make(chan struct{})
		d.site.set(wellKnown, held(release, text(document(issuerURL, nil))))
		d.site.set(other, text("{}"))
		found := make(chan error, 1)
		go func() {
			_, err := d.Endpoint(t.Context())
			found <- err
		}()
		pass(16 * time.Second)
		if n := len(d.site.visits()); n != 3 {
			t.Errorf("%d requests, want the first, one beside it, and one in the place of that", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		post := func(ctx context.Context) error {
			resp, err := d.HTTPClient().Do(newForm(t, ctx, other))
			if err == nil {
				resp.Body.Close()
			}
			return err
		}
		if err := post(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a form that may be for an endpoint: %v, want that it waits", err)
		}
		close(release)
		if err := <-found; err != nil {
			t.Error(err)
		}
		if err := post(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func newForm(t *testing.T, ctx context.Context, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("a=b"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req
}
