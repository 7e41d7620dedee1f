// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/internal/jwtview"
	"github.com/instancekey/instancekey/transport"
)

const (
	// usualHeader is how many bytes of one header field nginx and Apache take as they
	// come; mostHeaders is how many of all fields Node.js does.
	usualHeader, mostHeaders = 8 << 10, 16 << 10

	// clockSkew is how far clocks may differ; servers allow for about so much.
	clockSkew = time.Minute
)

// attestationView is what of an attestation servers are known to look at.
type attestationView struct {
	Header struct {
		Algorithm string   `json:"alg"`
		KeyID     string   `json:"kid"`
		Chain     []string `json:"x5c"`
	}
	Claims struct {
		Issuer   string   `json:"iss"`
		IssuedAt *float64 `json:"iat"`
		Expiry   float64  `json:"exp"`
		Confirm  struct {
			JWK struct {
				Algorithm string `json:"alg"`
			} `json:"jwk"`
		} `json:"cnf"`
	}
}

// examineAttestation gets one and looks at what servers demand of it. known says that the
// server's metadata is. It reports whether there is one to be sent.
func (s *setup) examineAttestation(ctx context.Context, known bool) bool {
	err := s.attest(ctx, known)
	compact := s.attester.said()
	if err != nil {
		s.attestationFailed(err)
		return false
	}
	view, err := readAttestation(compact)
	if err != nil {
		s.fail("attestation", "the attester's operator has to mend it", "cannot be read: %v", err)
		return false
	}
	expiry := time.Unix(int64(view.Claims.Expiry), 0)
	if left := expiry.Sub(s.now()).Round(time.Second); left < 2*clockSkew {
		s.warn("attestation", "let the attester attest for longer: clocks differ by as much", "is good for %v alone", left)
	} else {
		s.ok("attestation", "%s, good until %s", view.Header.Algorithm, expiry.UTC().Format(time.RFC3339))
	}
	good := s.issued(view)
	good = s.demanded(view) && good
	return s.size(len(compact)) && good
}

// attest asks for an attestation, by the client if there is one: it knows which
// algorithms the server lists, and checks what it gets.
func (s *setup) attest(ctx context.Context, known bool) error {
	if known {
		return s.client.Renew(ctx)
	}
	_, err := s.attester.Attest(ctx, client.AttestRequest{
		ClientID: s.flags.clientID, Key: s.key, Issuer: s.flags.issuer, Profile: profiles[s.flags.profile],
	})
	return err
}

func readAttestation(compact string) (view attestationView, err error) {
	parts, err := jwtview.Decode(compact)
	if err != nil {
		return view, err
	}
	if err := json.Unmarshal(parts.Header, &view.Header); err != nil {
		return view, err
	}
	return view, json.Unmarshal(parts.Claims, &view.Claims)
}

// issued looks at iat, which -12 demands, and which servers that know no exp measure the
// age by.
func (s *setup) issued(view attestationView) bool {
	const check = "attestation's iat"
	if view.Claims.IssuedAt == nil {
		s.fail(check, "let the attester put it in: draft -12 demands it, and servers measure the attestation's age by it", "there is none")
		return false
	}
	issued := time.Unix(int64(*view.Claims.IssuedAt), 0)
	switch age := s.now().Sub(issued).Round(time.Second); {
	case age < -clockSkew:
		s.fail(check, "compare the clocks of device and attester: servers refuse what is issued in the future", "is %v in the future by this device's clock", -age)
		return false
	case age > 24*time.Hour:
		s.warn(check, "if the server refuses it as too old, have it provisioned anew", "is %v ago", age)
	default:
		s.ok(check, "is there")
	}
	return true
}

// demanded looks at what a server that speaks -profile demands beyond the draft.
func (s *setup) demanded(view attestationView) bool {
	const check = "what -profile demands"
	profile := profiles[s.flags.profile]
	if !profile.HasIssuer() {
		return true
	}
	var missing []string
	if view.Claims.Issuer == "" {
		missing = append(missing, "iss")
	}
	if profile == transport.ProfileKeycloak && view.Header.KeyID == "" {
		missing = append(missing, "kid")
	}
	if profile == transport.ProfileKeycloak && view.Claims.Confirm.JWK.Algorithm == "" {
		missing = append(missing, "alg in cnf.jwk")
	}
	switch {
	case slices.Contains(missing, "iss"):
		s.fail(check, "let the attester put it in (attesterd -iss), or correct -profile", "the attestation has no %s", strings.Join(missing, ", no "))
		return false
	case len(missing) > 0:
		s.fail(check, "the attester's operator has to put it in, or correct -profile", "the attestation has no %s", strings.Join(missing, ", no "))
		return false
	case profile == transport.ProfileOpenID4VCI && len(view.Header.Chain) == 0:
		s.warn(check, "wallets' servers by HAIP or IT-Wallet demand it: give the attester's key an x5c, if this is one", "the attestation has no x5c")
	default:
		s.ok(check, "is there")
	}
	return true
}

// size compares that of the header field with what web servers take.
func (s *setup) size(bytes int) bool {
	const check = "header size"
	switch {
	case bytes > mostHeaders:
		s.fail(check, "let the attester put fewer claims and a shorter x5c in", "the attestation has %d bytes, more than Node.js takes of all header fields", bytes)
		return false
	case bytes > usualHeader-len(transport.HeaderAttestation)-4:
		s.warn(check, "let the attester put fewer claims and a shorter x5c in, or have the server's limit raised (nginx: large_client_header_buffers)",
			"the attestation has %d bytes, more than nginx and Apache take by default", bytes)
	default:
		s.ok(check, "%d bytes", bytes)
	}
	return true
}
