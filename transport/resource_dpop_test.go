// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

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
