// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/transport/transporttest"
)

const clientID = "meter"

// A place is a server that can be taken away. Its connections then end without
// an answer.
type place struct {
	*httptest.Server

	mu       sync.Mutex
	handler  http.Handler
	away     bool
	requests []string // method and path of those that were answered
}

func newPlace(t *testing.T) *place {
	p := new(place)
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Server.Close)
	return p
}

func (p *place) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	away, handler := p.away, p.handler
	if !away {
		p.requests = append(p.requests, r.Method+" "+r.URL.Path)
	}
	p.mu.Unlock()
	if away {
		panic(http.ErrAbortHandler)
	}
	handler.ServeHTTP(w, r)
}

// serve makes handler serve from now on.
func (p *place) serve(handler http.Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler = handler
}

// set takes it away or brings it back.
func (p *place) set(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

// count returns how many requests with this path were answered.
func (p *place) count(path string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.requests {
		if strings.HasSuffix(r, " "+path) {
			n++
		}
	}
	return n
}

// A world is what is around a device: the reference attester and authorization
// server, and a resource.
type world struct {
	t                              *testing.T
	attester, authServer, resource *place
	state                          string
	store                          string

	mu      sync.Mutex
	refused map[string]bool // tokens that the resource does not take any more
	last    string          // the token of the last call
	keys    []string        // x of the client instance's keys, in the order of their first call
}

func newWorld(t *testing.T) *world {
	return newWorldOf(t, newPlace, nil)
}

// newWorldOf makes the servers in such places, with an attester that wants that evidence.
func newWorldOf(t *testing.T, newPlace func(*testing.T) *place, wants *evidence.Verifier) *world {
	w := &world{
		t: t, attester: newPlace(t), authServer: newPlace(t), resource: newPlace(t), state: filepath.Join(t.TempDir(), "state"),
		refused: make(map[string]bool),
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	silent := slog.New(slog.DiscardHandler)
	attesters := silent
	if wants != nil {
		attesters = slog.New(slog.NewTextHandler(t.Output(), nil)) // why it refuses
	}
	a, err := attester.New(attester.Config{
		URL: w.attester.URL, Clients: []string{clientID}, Logger: attesters, Evidence: wants,
		Key: jose.JSONWebKey{Key: key, KeyID: "attester", Algorithm: string(jose.ES256), Use: "sig"},
	})
	if err != nil {
		t.Fatal(err)
	}
	as, err := authserver.New(authserver.Config{
		Issuer: w.authServer.URL, Clients: []authserver.Client{{ID: clientID, Scopes: []string{"readings"}}}, AttesterKeys: a.JWKS(), Logger: silent,
		Challenges: &authserver.ChallengeConfig{Endpoint: true}, RefreshTokens: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.attester.serve(a)
	w.authServer.serve(as)
	w.resource.serve(http.HandlerFunc(w.serveResource))
	return w
}

// serveResource takes a good token beside an attestation with a PoP for this
// resource, which its metadata asks for.
func (w *world) serveResource(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/.well-known/oauth-protected-resource/readings" {
		answer(rw, http.StatusOK, map[string]any{
			"resource": w.resource.URL + "/readings", "client_attestation_pop_methods_supported": []string{"attestation_pop_jwt"},
		})
		return
	}
	if r.URL.Path != "/readings" {
		http.NotFound(rw, r)
		return
	}
	pop := transporttest.ParseProof(r.Header.Get("OAuth-Client-Attestation-PoP"))
	attestation := transporttest.ParseProof(r.Header.Get("OAuth-Client-Attestation"))
	token, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if pop == nil || attestation == nil || pop.Audience != w.resource.URL+"/readings" || !isBearer {
		w.t.Errorf("the resource got %v", r.Header)
		rw.WriteHeader(http.StatusForbidden)
		return
	}
	var cnf struct {
		JWK struct {
			X string `json:"x"`
		} `json:"jwk"`
	}
	content, _ := json.Marshal(attestation.Claims["cnf"])
	_ = json.Unmarshal(content, &cnf)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refused[token] {
		rw.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.last = token
	if !slices.Contains(w.keys, cnf.JWK.X) {
		w.keys = append(w.keys, cnf.JWK.X)
	}
}

// refuse makes the resource refuse the token that it took last.
func (w *world) refuse() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused[w.last] = true
}

func (w *world) instances() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.keys)
}

// network takes everything away, or brings it back.
func (w *world) network(isThere bool) {
	for _, p := range []*place{w.attester, w.authServer, w.resource} {
		p.set(!isThere)
	}
}

func (w *world) args(more ...string) []string {
	return append([]string{
		"-store", w.store, "-state", w.state, "-issuer", w.authServer.URL, "-client-id", clientID,
		"-attester", w.attester.URL, "-resource", w.resource.URL + "/readings", "-scope", "readings", "-every", "1h",
	}, more...)
}

// A chip is a TPM that things happen to.
type chip struct {
	tpmtest.Device
	store   string
	stop    func() // nil: it is always there
	restart func()
	replace func()
}

func eachChip(t *testing.T, test func(t *testing.T, c chip)) {
	t.Run("simulator", func(t *testing.T) {
		sim := tpmtest.Simulator(t)
		test(t, chip{sim, "unix:" + tpmtest.ServeUnix(t, sim), nil, sim.Reset, sim.Manufacture})
	})
	t.Run("swtpm", func(t *testing.T) {
		sw := tpmtest.SWTPM(t, tpmtest.SWConfig{})
		network, address := sw.Addr()
		test(t, chip{sw, network + ":" + address, sw.Stop, sw.Restart, sw.Manufacture})
	})
}

// leftNothing fails the test if something is in the TPM.
func (c chip) leftNothing(t *testing.T) {
	t.Helper()
	tpm, err := c.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// A TPM that somebody still has open does not answer another one.
	inUse := time.AfterFunc(20*time.Second, func() { panic("the device has not closed its TPM") })
	defer inUse.Stop()
	defer tpm.Close()
	tpmtest.NoLeaks(t, tpm)
}
