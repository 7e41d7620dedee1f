// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/serve"
)

// Enrolment of a TPM's attestation key takes two requests, in the manner of
// Smallstep's Attestation CA: the device names its keys and gets a challenge,
// and for the answer it gets a certificate. Byte strings are in base64.
//
// Whoever sends the first request has proved nothing: EK certificates are no
// secret. So nothing is kept of it. All that the second one needs travels in the
// session, and what is remembered of that is remembered of a TPM that has answered.

const maxEnrolmentSize = 64 << 10

// enrolmentRequest is what a device says of its keys. The wire has more: what
// the device says of itself (tpmInfo) is not read.
type enrolmentRequest struct {
	EK             []byte   `json:"ek"`
	EKCertificates [][]byte `json:"ekCerts"`
	Parameters     struct {
		Public []byte `json:"public"`
	} `json:"params"`
}

type enrolmentChallenge struct {
	Session    string `json:"session"`
	Credential []byte `json:"credential"`
	Secret     []byte `json:"secret"`
}

type enrolmentAnswer struct {
	Session string `json:"session"`
	Secret  []byte `json:"secret"`
}

type enrolmentResult struct {
	Chain [][]byte `json:"chain"`
}

// serveEnrol is the first request.
func (s *Server) serveEnrol(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	var request enrolmentRequest
	if err := readBody(w, r, maxEnrolmentSize, &request); err != nil {
		s.writeError(r.Context(), w, "enrolment", err)
		return
	}
	challenge, err := s.enrol(&request)
	if err != nil {
		// Who it is that was refused has not been proved.
		claimed := sha256.Sum256(request.EK)
		s.writeError(r.Context(), w, "enrolment", err, slog.String("claimed_ek", hex.EncodeToString(claimed[:])))
		return
	}
	serve.JSON(w, http.StatusOK, challenge)
}

func (s *Server) enrol(request *enrolmentRequest) (*enrolmentChallenge, error) {
	enrolment, err := s.cfg.Evidence.Enrol(evidence.EnrolmentRequest{
		EK:             request.EK,
		EKCertificates: request.EKCertificates,
		AK:             request.Parameters.Public,
	})
	if err != nil {
		return nil, err
	}
	state, err := enrolment.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return &enrolmentChallenge{Session: s.sessions.Seal(state), Credential: enrolment.Credential, Secret: enrolment.Secret}, nil
}

// serveActivate is the second request.
func (s *Server) serveActivate(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	chain, ek, err := s.activate(w, r)
	if err != nil {
		s.writeError(r.Context(), w, "enrolment", err, slog.String("ek", ek))
		return
	}
	s.cfg.Logger.LogAttrs(r.Context(), slog.LevelInfo, "attestation key enrolled", slog.String("ek", ek))
	serve.JSON(w, http.StatusOK, enrolmentResult{chain})
}

func (s *Server) activate(w http.ResponseWriter, r *http.Request) (chain [][]byte, ek string, err error) {
	var answer enrolmentAnswer
	if err := readBody(w, r, maxEnrolmentSize, &answer); err != nil {
		return nil, "", err
	}
	state, err := s.sessions.Open(answer.Session)
	if err != nil || s.answered.Has(answer.Session) {
		return nil, "", refuse(codeInvalidSession, "no such session, or no longer")
	}
	var enrolment evidence.Enrolment
	if err := enrolment.UnmarshalBinary(state); err != nil {
		return nil, "", err
	}
	chain, err = s.cfg.Evidence.Complete(&enrolment, answer.Secret)
	if err == nil {
		err = spend(s.answered, answer.Session, codeInvalidSession)
	}
	if err != nil {
		return nil, enrolment.EK, err
	}
	return chain, enrolment.EK, nil
}
