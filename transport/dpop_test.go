package transport_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// withDPoP puts proofs by another key beside the PoP JWTs of token and PAR
// requests.
func withDPoP(c *transport.Config) {
	c.DPoPKey = dpopKey
	for i := range c.Servers {
		c.Servers[i].DPoPEndpoints = c.Servers[i].Endpoints[:2]
	}
}

var dpopKey = newKey()

func TestC23DPoPBesideThePoP(t *testing.T) {
	f := newFixture(t, policy{Nonces: true}, withDPoP)
	f.token(http.StatusOK)
	f.counts(1, 1) // C24: the nonce came with the challenge
	r := f.server.Requests(transporttest.Token)[0]
	if r.PoP == nil || r.DPoP == nil || r.DPoP.Nonce == "" {
		t.Fatalf("PoP %v, DPoP %v", r.PoP, r.DPoP)
	}
	if r.DPoP.ID == r.PoP.ID {
		t.Error("PoP and DPoP proof have one jti")
	}
	jwk, err := keystore.JWK(dpopKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	want, err := jwk.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if x, _ := r.DPoP.Header["jwk"].(map[string]any)["x"].(string); x == "" || !strings.Contains(string(want), x) {
		t.Errorf("jwk %v, want %s", r.DPoP.Header["jwk"], want)
	}
	f.want(http.StatusOK, newRequest(t, t.Context(), f.server.Endpoint(transporttest.Revocation)))
	if r := f.server.Requests(transporttest.Revocation)[0]; r.DPoP != nil || r.PoP == nil {
		t.Error("a request that is no DPoP endpoint's has a DPoP proof")
	}
}

func TestC43DPoPProof(t *testing.T) {
	f := newFixture(t, policy{}, withDPoP)
	f.want(http.StatusOK, newRequest(t, t.Context(), f.server.Endpoint(transporttest.Token)+"?tenant=1"))
	r := f.server.Requests(transporttest.Token)[0]
	if names := slices.Sorted(maps.Keys(r.DPoP.Header)); !slices.Equal(names, []string{"alg", "jwk", "typ"}) || r.DPoP.Header["typ"] != "dpop+jwt" {
		t.Errorf("header %v", r.DPoP.Header)
	}
	if names := slices.Sorted(maps.Keys(r.DPoP.Claims)); !slices.Equal(names, []string{"htm", "htu", "iat", "jti"}) {
		t.Errorf("claims %v", names)
	}
	if r.DPoP.Claims["htm"] != "POST" || r.DPoP.Claims["htu"] != f.server.Endpoint(transporttest.Token) {
		t.Errorf("htm %v, htu %v", r.DPoP.Claims["htm"], r.DPoP.Claims["htu"])
	}
	if _, private := r.DPoP.Header["jwk"].(map[string]any)["d"]; private {
		t.Error("the private key was sent")
	}
}

// TestC20CombinedMode: one proof for both, no PoP JWT, no challenge (C22).
func TestC20CombinedMode(t *testing.T) {
	for _, nonces := range []bool{false, true} {
		t.Run(fmt.Sprint(nonces), func(t *testing.T) {
			f := newFixture(t, policy{Combined: true, Nonces: nonces})
			for range 3 {
				f.token(http.StatusOK)
			}
			f.counts(3, 1)
			for _, r := range f.server.Requests(transporttest.Token) {
				if len(r.Header.Values(transport.HeaderAttestationPoP)) != 0 || r.DPoP == nil || (r.DPoP.Nonce != "") != nonces {
					t.Errorf("PoP fields %d, DPoP %v", len(r.Header.Values(transport.HeaderAttestationPoP)), r.DPoP)
				}
				if _, ok := r.DPoP.Claims["challenge"]; ok {
					t.Error("the proof has a challenge")
				}
			}
		})
	}
}

func TestC22CombinedModeIgnoresChallenges(t *testing.T) {
	f := newFixture(t, policy{Combined: true, Nonces: true})
	f.server.Set(func(p *policy) {
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			w.Header().Set(transport.HeaderChallenge, "not for a nonce")
			return false
		}
	})
	f.token(http.StatusOK)
	f.token(http.StatusOK)
	for _, r := range f.server.Requests(transporttest.Token) {
		if r.DPoP.Nonce == "not for a nonce" || r.DPoP.Nonce == "" {
			t.Errorf("nonce %q", r.DPoP.Nonce)
		}
	}
}

// TestC44NonceRetry: once, with the error's own nonce; and the newest is used
// from then on, whatever response it came with.
func TestC44NonceRetry(t *testing.T) {
	for _, combined := range []bool{false, true} {
		t.Run(fmt.Sprintf("combined=%v", combined), func(t *testing.T) {
			f := newFixture(t, policy{Combined: combined, Nonces: true}, withDPoP)
			f.token(http.StatusOK)
			f.server.RotateNonce()
			f.server.Forget()
			f.token(http.StatusOK)
			f.counts(2, 0)
			f.token(http.StatusOK)
			f.counts(3, 0)
			f.server.Set(func(p *policy) { p.Offer = transporttest.OfferAlways })
			f.server.Forget()
			f.token(http.StatusOK)
			f.server.RotateNonce() // the next one comes with a success
			f.want(http.StatusOK, newRequest(t, t.Context(), f.server.Endpoint(transporttest.Revocation)))
			f.token(http.StatusOK)
			if !combined { // there the revocation request has no proof, and brings the nonce
				f.counts(2, 0)
			}
		})
	}
	t.Run("no nonce with the error", func(t *testing.T) {
		f := newFixture(t, policy{Combined: true})
		f.token(http.StatusOK)
		f.server.Forget()
		f.server.Set(func(p *policy) { p.Intercept = dpopError("") })
		f.token(http.StatusBadRequest)
		f.counts(1, 0)
	})
	t.Run("a new nonce each time", func(t *testing.T) {
		f := newFixture(t, policy{Combined: true})
		f.server.Set(func(p *policy) { p.Intercept = dpopError("n") })
		f.token(http.StatusBadRequest)
		f.counts(2, 1)
	})
}

// dpopError refuses every token request for its nonce.
func dpopError(nonce string) func(http.ResponseWriter, transporttest.Request) bool {
	n := 0
	return func(w http.ResponseWriter, r transporttest.Request) bool {
		if r.Endpoint != transporttest.Token {
			return false
		}
		if n++; nonce != "" {
			w.Header().Set(transport.HeaderDPoPNonce, fmt.Sprint(nonce, n))
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"use_dpop_nonce"}`)
		return true
	}
}

// TestOneDPoPField: with a proof of our own the caller's does not stay, in
// whatever case it is; without, it is the caller's affair.
func TestOneDPoPField(t *testing.T) {
	for _, name := range []string{"DPoP", "Dpop", "dpop", "dPoP"} {
		f := newFixture(t, policy{Combined: true})
		req := f.request(t.Context())
		req.Header[name] = []string{"the caller's"}
		f.want(http.StatusOK, req)
	}
	f := newFixture(t, policy{})
	req := f.request(t.Context())
	req.Header.Set("DPoP", "the caller's")
	f.want(http.StatusBadRequest, req)
	if got := f.server.Requests(transporttest.Token)[0].Header.Get("DPoP"); got != "the caller's" {
		t.Errorf("DPoP %q", got)
	}
}

// TestC43AthAtAResource: C46 as well.
func TestC43AthAtAResource(t *testing.T) {
	const resource = "https://rs.example/api"
	f := newFixture(t, policy{})
	var got *http.Request
	f.Transport = f.another(func(c *transport.Config) {
		c.Resources = []transport.Resource{{Identifier: resource, Method: transport.MethodDPoP}}
		c.Base = recording(&got)
	})
	req := get(t, resource+"/things?x=1")
	req.Header.Set("Authorization", "DPoP the-token")
	if _, err := f.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	proof := transporttest.ParseProof(got.Header.Get("DPoP"))
	if proof == nil || got.Header.Get(transport.HeaderAttestation) == "" || got.Header.Get(transport.HeaderAttestationPoP) != "" {
		t.Fatalf("header %v", got.Header)
	}
	sum := sha256.Sum256([]byte("the-token"))
	if proof.Claims["ath"] != base64.RawURLEncoding.EncodeToString(sum[:]) || proof.Claims["htm"] != "GET" || proof.Claims["htu"] != resource+"/things" {
		t.Errorf("claims %v", proof.Claims)
	}
}

// TestC43HTUHasAPath: the one that the request line has.
func TestC43HTUHasAPath(t *testing.T) {
	for _, url := range []string{"https://rs.example", "https://rs.example/", "https://rs.example?x=1"} {
		var got *http.Request
		f := newFixture(t, policy{})
		f.Transport = f.another(func(c *transport.Config) {
			c.Resources = []transport.Resource{{Identifier: "https://rs.example", Method: transport.MethodDPoP}}
			c.Base = recording(&got)
		})
		req := get(t, url)
		req.Header.Set("Authorization", "DPoP the-token")
		if _, err := f.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		if proof := transporttest.ParseProof(got.Header.Get("DPoP")); proof == nil || proof.Claims["htu"] != "https://rs.example/" {
			t.Errorf("%s: proof %+v", url, proof)
		}
	}
}

// TestOpaqueURLOfAResource: the path that is compared is not the one that is
// sent.
func TestOpaqueURLOfAResource(t *testing.T) {
	var got *http.Request
	f := newFixture(t, policy{})
	f.Transport = f.another(func(c *transport.Config) {
		c.Resources = []transport.Resource{{Identifier: "https://rs.example/api"}}
		c.Base = recording(&got)
	})
	req := get(t, "https://rs.example/api/x")
	req.URL.Opaque = "/other"
	if _, err := f.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if got != req {
		t.Error("sent with credentials")
	}
}

// recording is a base transport that answers 200 and keeps the request.
func recording(to **http.Request) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		*to = req
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
	})
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestCombinedResourceWithoutDPoPToken: an attestation never goes without a
// proof of possession.
func TestCombinedResourceWithoutDPoPToken(t *testing.T) {
	for _, authorization := range []string{"", "Bearer the-token"} {
		var got *http.Request
		f := newFixture(t, policy{})
		f.Transport = f.another(func(c *transport.Config) {
			c.Resources = []transport.Resource{{Identifier: "https://rs.example/api", Method: transport.MethodDPoP}}
			c.Base = recording(&got)
		})
		req := get(t, "https://rs.example/api/x")
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		if _, err := f.RoundTrip(req); err != nil {
			continue
		}
		if got.Header.Get(transport.HeaderAttestation) != "" && got.Header.Get(transport.HeaderDPoP) == "" {
			t.Errorf("Authorization %q: an attestation was sent without a proof", authorization)
		}
	}
}

// TestResourcePathWithDotSegments: what a server takes for a place outside the
// resource gets no credentials.
func TestResourcePathWithDotSegments(t *testing.T) {
	for path, signed := range map[string]bool{
		"/api": true, "/api/": true, "/api/x": true, "/api/x..y": true, "/api/...": true,
		"/apis": false, "/API": false,
		"/api/..": false, "/api/../other": false, "/api/./x": false, "/api/%2e%2e/other": false, "/api/.%2E/other": false, "/api/%2E": false,
		"/api/..%2fother": false, `/api/..%5cother`: false,
	} {
		var got *http.Request
		f := newFixture(t, policy{})
		f.Transport = f.another(func(c *transport.Config) {
			c.Resources = []transport.Resource{{Identifier: "https://rs.example/api"}}
			c.Base = recording(&got)
		})
		if _, err := f.RoundTrip(get(t, "https://rs.example"+path)); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if has := got.Header.Get(transport.HeaderAttestation) != ""; has != signed {
			t.Errorf("%s sent with credentials: %v, want %v", path, has, signed)
		}
	}
}

// TestEmptyMethodIsGET, as net/http has it.
func TestEmptyMethodIsGET(t *testing.T) {
	var got *http.Request
	f := newFixture(t, policy{})
	f.Transport = f.another(func(c *transport.Config) {
		c.Resources = []transport.Resource{{Identifier: "https://rs.example/api", Method: transport.MethodDPoP}}
		c.Base = recording(&got)
	})
	req := get(t, "https://rs.example/api/x")
	req.Method = ""
	req.Header.Set("Authorization", "DPoP t")
	if _, err := f.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if proof := transporttest.ParseProof(got.Header.Get("DPoP")); proof == nil || proof.Claims["htm"] != "GET" {
		t.Errorf("proof %+v", proof)
	}
}

// TestC24OneFetchForChallengeAndNonce: the endpoint's answer says whether it has
// nonces, so it need not be asked for one again.
func TestC24OneFetchForChallengeAndNonce(t *testing.T) {
	for _, nonces := range []bool{false, true} {
		for _, kind := range []transporttest.Kind{transporttest.Reusable, transporttest.NoChallenges} {
			t.Run(fmt.Sprintf("nonces=%v,kind=%d", nonces, kind), func(t *testing.T) {
				f := newFixture(t, policy{Nonces: nonces, Kind: kind}, withDPoP)
				f.token(http.StatusOK)
				f.counts(1, 1)
				f.token(http.StatusOK)
				f.counts(2, 1)
			})
		}
	}
}
