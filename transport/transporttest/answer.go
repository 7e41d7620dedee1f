// SPDX-License-Identifier: Apache-2.0

package transporttest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/instancekey/instancekey/transport"
)

const hugeBody = 1 << 20 // bytes

// answer writes the answer to a request that was judged.
func (s *Server) answer(w http.ResponseWriter, p Policy, r *Request) {
	if r.offered != "" {
		w.Header().Set(transport.HeaderChallenge, r.offered)
	}
	if r.nonce != "" {
		w.Header().Set(transport.HeaderDPoPNonce, r.nonce)
	}
	w.Header().Set("Cache-Control", "no-store")
	if r.answer != nil {
		writeJSON(w, r.Status, r.answer)
		return
	}
	if r.Code != "" {
		writeError(w, p, r)
		return
	}
	answer := map[string]any{"active": true}
	switch r.Endpoint {
	case Token:
		tokenType := "Bearer"
		if r.DPoP != nil {
			tokenType = "DPoP"
		}
		answer = map[string]any{"access_token": s.values.next(), "refresh_token": s.values.next(), "token_type": tokenType, "expires_in": 300}
	case PAR:
		answer = map[string]any{"request_uri": "urn:ietf:params:oauth:request_uri:" + s.values.next(), "expires_in": 60}
	}
	writeJSON(w, r.Status, answer)
}

func writeError(w http.ResponseWriter, p Policy, r *Request) {
	body := marshal(map[string]any{"error": r.Code})
	switch p.Body {
	case HugeBody:
		body = marshal(map[string]any{"error": r.Code, "error_description": strings.Repeat("x", hugeBody)})
	case DuplicateBody:
		body = []byte(`{"error":"invalid_grant","error":"` + r.Code + `"}`)
	case GzipBody:
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		_, _ = z.Write(body) // into memory: cannot fail
		_ = z.Close()
		body = zipped.Bytes()
		w.Header().Set("Content-Encoding", "gzip")
	}
	contentType := p.ContentType
	if contentType == "" {
		contentType = "application/json"
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(r.Status)
	_, _ = w.Write(body) // a client that has gone away is its own affair
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(marshal(v))
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only maps of plain values come here
	}
	return b
}
