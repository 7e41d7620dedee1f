// SPDX-License-Identifier: Apache-2.0

package transporttest

import (
	"net/http"
	"slices"

	"github.com/instancekey/instancekey/transport"
)

// A Request is what has come to a Server, and what became of it.
type Request struct {
	Endpoint     string // its name; "" for a path that the server does not have
	Method, Path string
	Header       http.Header
	Body         []byte // nil if Policy.Early was set

	PoP  *Proof // the PoP JWT, if there is exactly one, well-formed or not verified
	DPoP *Proof // the DPoP proof, likewise

	KeyThumbprint  string // of the key in a good attestation, as keystore.Thumbprint has it; "" if there is none
	DPoPThumbprint string // of the key of a good DPoP proof; "" if there is none

	Status int    // of the answer; 0 until it was judged, and if there was none
	Code   string // OAuth error code of the answer
	Reason string // why

	offered, nonce string
	answer         map[string]any // by Policy.Answer
}

// Offered is the challenge in the answer's header; "" if there is none.
func (r Request) Offered() string { return r.offered }

// Attestation is the Client Attestation; "" if there is not exactly one.
func (r Request) Attestation() string {
	if values := r.Header.Values(transport.HeaderAttestation); len(values) == 1 {
		return values[0]
	}
	return ""
}

func (s *Server) record(hr *http.Request, body []byte) *Request {
	r := &Request{
		Endpoint: s.endpoints[hr.URL.Path],
		Method:   hr.Method,
		Path:     hr.URL.Path,
		Header:   hr.Header.Clone(),
		Body:     body,
	}
	for name, to := range map[string]**Proof{transport.HeaderAttestationPoP: &r.PoP, transport.HeaderDPoP: &r.DPoP} {
		if raw, err := field(hr.Header, name); err == nil {
			*to = ParseProof(raw)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	return r
}

// settle changes a record that tests may be reading.
func (s *Server) settle(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *Server) snapshot(r *Request) Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *r
}

// Requests returns the requests so far to the named endpoints, to all if none
// is named, in the order in which they came.
func (s *Server) Requests(endpoints ...string) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Request
	for _, r := range s.requests {
		if len(endpoints) == 0 || slices.Contains(endpoints, r.Endpoint) {
			out = append(out, *r)
		}
	}
	return out
}

// Count returns how many requests have come to an endpoint.
func (s *Server) Count(endpoint string) int { return len(s.Requests(endpoint)) }

// Refused returns how many PoP JWTs were refused for their challenge.
func (s *Server) Refused() int {
	s.challenges.mu.Lock()
	defer s.challenges.mu.Unlock()
	return s.challenges.refused
}

// Forget drops what was recorded so far, so that Requests, Count and Refused
// begin anew. What the server knows of challenges and jtis stays.
func (s *Server) Forget() {
	s.mu.Lock()
	s.requests = nil
	s.mu.Unlock()
	s.challenges.mu.Lock()
	s.challenges.refused = 0
	s.challenges.mu.Unlock()
}
