// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"net/http"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/transport/transporttest"
)

const maxBody = 64 << 10 // bytes

// controls serves what a test does to the server or asks of it.
func controls(server *transporttest.Server) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /attestation", func(w http.ResponseWriter, r *http.Request) {
		var jwk jose.JSONWebKey
		if err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&jwk); err != nil || !jwk.IsPublic() {
			http.Error(w, "the body must be a public JWK", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/jwt")
		_, _ = io.WriteString(w, server.Attester.Attest(jwk.Key)) // whoever has gone away wants no answer
	})
	mux.HandleFunc("GET /requests", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(requests(server))
	})
	mux.HandleFunc("POST /rotate", func(http.ResponseWriter, *http.Request) { server.Rotate() })
	mux.HandleFunc("POST /rotate-nonce", func(http.ResponseWriter, *http.Request) { server.RotateNonce() })
	mux.HandleFunc("POST /deny", func(w http.ResponseWriter, r *http.Request) {
		attestation, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		server.Deny(string(attestation))
	})
	return mux
}

// A request is what GET /requests tells of a [transporttest.Request].
type request struct {
	Endpoint  string `json:"endpoint"`
	Method    string `json:"method"`
	Path      string `json:"path"`
	Status    int    `json:"status"`
	Code      string `json:"error,omitempty"`
	Reason    string `json:"reason,omitempty"`    // why it was refused
	Challenge string `json:"challenge,omitempty"` // in the PoP JWT
	Offered   string `json:"offered,omitempty"`   // in the answer's header
}

func requests(server *transporttest.Server) []request {
	all := []request{}
	for _, r := range server.Requests() {
		told := request{
			Endpoint: r.Endpoint, Method: r.Method, Path: r.Path,
			Status: r.Status, Code: r.Code, Reason: r.Reason, Offered: r.Offered(),
		}
		if r.PoP != nil {
			told.Challenge = r.PoP.Challenge
		}
		all = append(all, told)
	}
	return all
}
