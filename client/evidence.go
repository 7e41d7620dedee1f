// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/instancekey/instancekey/keystore"
)

// ErrNoEvidence: the Client Attester wants evidence of where the Client Instance Key is
// kept, and the key is no keystore.AttestableKey. A key in software, for example, is
// none. Only the request for a challenge was sent. Keep the key in a TPM, or ask an
// attester that needs no evidence.
var ErrNoEvidence = errors.New("client: the attester wants evidence of where the key is kept, and the key's store can give none: keep the key in a TPM")

// evidenceMessage is the member of a request to an attester that says where the
// key is kept and what the device has booted.
type evidenceMessage struct {
	Statement string          `json:"attObj"` // base64url
	TPM       *tpmAttestation `json:"tpmAttestation,omitempty"`
}

// tpmAttestation has the member names of Google's Confidential Computing API;
// byte strings are in base64.
type tpmAttestation struct {
	Quotes   []quote `json:"quotes"`
	EventLog []byte  `json:"tcgEventLog,omitempty"`

	UserspaceLog []byte `json:"canonicalEventLog,omitempty"`
	IMALog       []byte `json:"imaLog,omitempty"`
}

type quote struct {
	HashAlg   uint16            `json:"hashAlgo"`
	PCRs      map[string][]byte `json:"pcrValues"` // by number, in decimal
	Quoted    []byte            `json:"rawQuote"`
	Signature []byte            `json:"rawSignature"`
}

// evidence collects what the attester wants, bound to its challenge and to the
// key. pcrs is nil where it wants nothing.
func (c *attesterCall) evidence(ctx context.Context, challenge string, pcrs *[]int) (*evidenceMessage, error) {
	if pcrs == nil {
		return nil, nil
	}
	key, ok := c.request.Key.(keystore.AttestableKey)
	if !ok {
		return nil, ErrNoEvidence
	}
	chain, err := c.akCertificates(ctx, key)
	if err != nil {
		return nil, err
	}
	thumbprint, err := keystore.Thumbprint(key.Public())
	if err != nil {
		return nil, err
	}
	binding := sha256.Sum256([]byte(challenge + "." + thumbprint))
	start := time.Now()
	collected, err := key.Evidence(ctx, keystore.EvidenceRequest{Binding: binding[:], PCRs: *pcrs, AKCertificates: withoutAnchor(chain)})
	c.request.Trace.evidence(ctx, start, evidenceCollect, err)
	if err != nil {
		return nil, fmt.Errorf("client: evidence for the attester: %w", err)
	}
	return encodeEvidence(collected), nil
}

// withoutAnchor leaves out a certificate at the end of a chain that signs itself: the
// attester has it, and verifiers of Web Authentication refuse a chain that has their
// trust anchor in it.
func withoutAnchor(chain [][]byte) [][]byte {
	if len(chain) < 2 {
		return chain
	}
	last, err := x509.ParseCertificate(chain[len(chain)-1])
	if err != nil || last.CheckSignatureFrom(last) != nil {
		return chain
	}
	return chain[:len(chain)-1]
}

func encodeEvidence(collected keystore.Evidence) *evidenceMessage {
	encoded := &evidenceMessage{Statement: base64.RawURLEncoding.EncodeToString(collected.Statement)}
	if collected.Quote == nil {
		return encoded
	}
	values := make(map[string][]byte)
	for pcr, value := range collected.Quote.PCRs {
		values[strconv.Itoa(pcr)] = value
	}
	encoded.TPM = &tpmAttestation{
		Quotes: []quote{{
			HashAlg:   collected.Quote.HashAlg,
			PCRs:      values,
			Quoted:    collected.Quote.Quoted,
			Signature: collected.Quote.Signature,
		}},
		EventLog: collected.EventLog, UserspaceLog: collected.UserspaceLog, IMALog: collected.IMALog,
	}
	return encoded
}
