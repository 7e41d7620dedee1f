// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/transport"
)

// The examples speak to as.example.com, attester.example.com and
// cloud.example.com, as a reader expects. This is where those are.
func init() {
	network := http.NewServeMux()
	network.HandleFunc("as.example.com/.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer":                                "https://as.example.com",
			"authorization_endpoint":                "https://as.example.com/authorize",
			"token_endpoint":                        "https://as.example.com/token",
			"pushed_authorization_request_endpoint": "https://as.example.com/par",
			"challenge_endpoint":                    "https://as.example.com/challenge",
			"token_endpoint_auth_methods_supported": []string{"attest_jwt_client_auth"},
		})
	})
	network.HandleFunc("POST as.example.com/challenge", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"attestation_challenge": "c29tZXRoaW5nIG5ldw"})
	})
	network.HandleFunc("POST as.example.com/par", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(transport.HeaderAttestation) == "" || r.Header.Get(transport.HeaderAttestationPoP) == "" || r.PostFormValue("code_challenge") == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		answer(w, map[string]any{"request_uri": "urn:example:1", "expires_in": 60})
	})
	network.HandleFunc("POST as.example.com/token", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(transport.HeaderAttestation) == "" || r.Header.Get(transport.HeaderAttestationPoP) == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answer(w, map[string]any{"access_token": "access", "refresh_token": "refresh", "token_type": "Bearer", "expires_in": 300})
	})
	network.HandleFunc("POST attester.example.com/challenge", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"challenge": "YW5vdGhlciBvbmU"})
	})
	network.HandleFunc("POST attester.example.com/client-attestation", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Request string `json:"request"`
		}
		_ = json.NewDecoder(r.Body).Decode(&body)
		request, err := jose.ParseSignedCompact(body.Request, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		answer(w, map[string]any{"client_attestation": attestKey(request.Signatures[0].Protected.JSONWebKey)})
	})
	network.HandleFunc("POST cloud.example.com/devices/{serial}/attestation", func(w http.ResponseWriter, r *http.Request) {
		jwk := new(jose.JSONWebKey)
		if err := json.NewDecoder(r.Body).Decode(jwk); err != nil || r.PathValue("serial") != "SN-1007" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, attestKey(jwk))
	})
	http.DefaultTransport = exampleHosts{inProcess{network}, http.DefaultTransport}
}

// exampleHosts answers for the hosts of the examples, and leaves others to
// next.
type exampleHosts struct{ network, next http.RoundTripper }

func (e exampleHosts) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.HasSuffix(req.URL.Hostname(), ".example.com") {
		return e.network.RoundTrip(req)
	}
	return e.next.RoundTrip(req)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// attestKey is what a Client Attester does once it has believed the evidence.
func attestKey(jwk *jose.JSONWebKey) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, new(jose.SignerOptions).WithType("oauth-client-attestation+jwt"))
	if err != nil {
		panic(err)
	}
	attestation, err := jwt.Signed(signer).Claims(map[string]any{
		"sub": "meter-firmware",
		"exp": time.Now().Add(time.Hour).Unix(),
		"cnf": map[string]any{"jwk": jwk},
	}).Serialize()
	if err != nil {
		panic(err)
	}
	return attestation
}
