// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

const (
	api          = "https://api.example.com/v1"
	apiWellKnown = "https://api.example.com/.well-known/oauth-protected-resource/v1"
)

// An apiRig is a rig with a protected resource beside it.
type apiRig struct {
	*rig
	*client.Client
	site *site
}

func newAPIRig(t *testing.T, r *rig, edits ...func(*client.Config)) *apiRig {
	a := &apiRig{rig: r, site: newSite()}
	a.site.set(api, status(http.StatusOK))
	a.Client = r.client(t, append([]func(*client.Config){func(cfg *client.Config) {
		cfg.Resources = []client.Resource{{Identifier: api, Attestation: client.AttestAlways}}
		cfg.Base = byHost{"api.example.com": inProcess{a.site}, "": inProcess{r}}
	}}, edits...)...)
	return a
}

// get calls the resource with an access token.
func (a *apiRig) get(ctx context.Context, authorization string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, api, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", authorization)
	resp, err := a.HTTPClient().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}

// asked returns how often metadata was asked for.
func (a *apiRig) asked() (n int) {
	for _, visit := range a.site.visits() {
		if visit == "GET "+apiWellKnown {
			n++
		}
	}
	return n
}

func resourceDocument(edits map[string]any) string {
	m := map[string]any{"resource": api}
	maps.Copy(m, edits)
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestResourceDPoPRequired(t *testing.T) {
	for name, test := range map[string]struct {
		edit     func(*client.Config)
		combined bool // by the authorization server's metadata
		ok       bool
	}{
		"own key":            {ownKey, false, true},
		"combined":           {func(cfg *client.Config) { cfg.Method = transport.MethodDPoP }, true, true},
		"combined, by auto":  {func(*client.Config) {}, true, true},
		"tokens are bearers": {func(*client.Config) {}, false, false},
	} {
		for _, kept := range []bool{false, true} { // the token is of a run before, and no metadata is known
			t.Run(fmt.Sprintf("%s, kept: %t", name, kept), func(t *testing.T) {
				a := newAPIRig(t, newRig(t, transporttest.Policy{Combined: test.combined}), test.edit)
				a.site.set(apiWellKnown, text(resourceDocument(map[string]any{"dpop_bound_access_tokens_required": true})))
				authorization := "DPoP kept"
				if !kept {
					token, err := a.Token(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					authorization = token.Type() + " " + token.AccessToken
				}
				err := a.get(t.Context(), authorization)
				if test.ok && err != nil || !test.ok && !errors.Is(err, client.ErrMetadata) {
					t.Errorf("error %v, want ok = %t", err, test.ok)
				}
			})
		}
	}
}

func TestResourceMetadataIsShared(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := newAPIRig(t, r)
		release := make(chan struct{})
		a.site.set(apiWellKnown, held(release, text(resourceDocument(nil))))
		results := make(chan error, 32)
		for range cap(results) {
			go func() { results <- a.get(t.Context(), "Bearer token") }()
		}
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		go func() { gaveUp <- a.get(ctx, "Bearer token") }()
		synctest.Wait()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
		close(release)
		for range cap(results) {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if n := len(a.site.visits()) - cap(results); n != 1 {
			t.Errorf("%d metadata requests, want 1", n)
		}
	})
}

// TestResourceMetadataGoneIsNotAskedForWithEachCall: metadata that never was, or
// has vanished, is asked for again, since a proxy may have said so, and less and less
// often if it stays away.
func TestResourceMetadataGoneIsNotAskedForWithEachCall(t *testing.T) {
	type step struct {
		after time.Duration // since the step before
		page  http.HandlerFunc
		asked int // in all, after ten calls
	}
	found := text(resourceDocument(nil))
	for name, steps := range map[string][]step{
		"never was": {
			{0, status(404), 1},
			{4 * time.Minute, status(404), 1},
			{time.Minute, status(404), 2},
			{9 * time.Minute, status(404), 2},
			{time.Minute, status(503), 3},
			{4 * time.Minute, status(503), 3},
			{2 * time.Minute, status(503), 4},
			{6 * time.Minute, status(404), 5},
			{19 * time.Minute, status(404), 5},
			{time.Minute, status(404), 6},
			{40 * time.Minute, status(404), 7},
			{80 * time.Minute, status(404), 8},
			{160 * time.Minute, status(404), 9},
			{320 * time.Minute, status(404), 10},
			{640 * time.Minute, status(404), 11},
			{1280 * time.Minute, status(404), 12},
			{24 * time.Hour, status(404), 13},
			{24*time.Hour - time.Second, status(404), 13},
		},
		"vanished": {
			{0, found, 1},
			{25 * time.Hour, status(404), 2},
			{25 * time.Hour, status(503), 3},
			{6 * time.Minute, found, 4},
			{23 * time.Hour, found, 4},
		},
		"was not there for a moment": {
			{0, status(404), 1},
			{5 * time.Minute, found, 2},
			{23 * time.Hour, found, 2},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				a := newAPIRig(t, r)
				for i, step := range steps {
					a.clock.advance(step.after)
					a.site.set(apiWellKnown, step.page)
					for range 10 {
						if err := a.get(t.Context(), "Bearer token"); err != nil {
							t.Fatal(err)
						}
						synctest.Wait() // for what goes on in the background
					}
					if n := a.asked(); n != step.asked {
						t.Errorf("step %d: %d requests for metadata in all, want %d", i, n, step.asked)
					}
				}
			})
		})
	}
}

func TestResourceMetadataRenewal(t *testing.T) {
	for name, page := range map[string]http.HandlerFunc{
		"fails":            status(503),
		"is of another":    text(resourceDocument(map[string]any{"resource": "https://other.example.com"})),
		"stalls":           held(nil, nil),
		"wants other algs": text(resourceDocument(map[string]any{"client_attestation_pop_signing_alg_values_supported": []string{"ES384"}})),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				a := newAPIRig(t, r)
				a.site.set(apiWellKnown, text(resourceDocument(nil)))
				if err := a.get(t.Context(), "Bearer token"); err != nil {
					t.Fatal(err)
				}
				a.clock.advance(25 * time.Hour)
				a.site.set(apiWellKnown, page)
				begin := time.Now()
				if err := a.get(t.Context(), "Bearer token"); err != nil {
					t.Errorf("with usable metadata at hand: %v", err)
				}
				if waited := time.Since(begin); waited != 0 {
					t.Errorf("waited %v for metadata, with usable metadata at hand", waited)
				}
				pass(time.Minute) // for what goes on in the background
				for range 3 {
					if err := a.get(t.Context(), "Bearer token"); err != nil {
						t.Error(err)
					}
					synctest.Wait()
				}
				if n := a.asked(); n != 2 {
					t.Errorf("%d requests for metadata, want 2: at first and after a day, not with each call", n)
				}
			})
		})
	}
}
