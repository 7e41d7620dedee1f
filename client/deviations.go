// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Deviations are the points at which a profile may deviate from the draft (draft,
// "Considerations for Profiling this specification"). A profile for workload identities,
// for example, has attestations of type wit+jwt whose "sub" is a SPIFFE ID. All other
// checks of attestations and stored tokens stay. The zero value means the draft.
type Deviations struct {
	// AttestationType is the "typ" of attestations, which is compared as text.
	// Empty means the draft's, oauth-client-attestation+jwt. The type of
	// another JWT that a Client signs is an error of New.
	AttestationType string

	// CheckSubject decides whether an attestation with this "sub" is this client's. It
	// replaces the comparison of "sub" with ClientID. If CheckSubject returns an error,
	// the attestation is ErrInvalidAttestation, which wraps that error. The Client
	// refuses an attestation without "sub" itself. One Client never calls CheckSubject
	// twice at the same time. Nil means that "sub" must be ClientID.
	CheckSubject func(sub string) error

	// RefreshTokensOfAnyKey says that the profile does not bind refresh tokens to the
	// Client Instance Key. Adopt then accepts stored tokens of other Client Instance
	// Keys, too. Their issuer and client must still be this Client's.
	RefreshTokensOfAnyKey bool
}

const alphanumerics = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// isMediaType reports whether text is a media type or its subtype alone (RFC 6838, section
// 4.2).
func isMediaType(text string) bool {
	first, second, hasTwo := strings.Cut(text, "/")
	return isTypeName(first) && (!hasTwo || isTypeName(second))
}

func isTypeName(name string) bool {
	return name != "" && len(name) <= 127 && strings.Contains(alphanumerics, name[:1]) &&
		strings.Trim(name, alphanumerics+"!#$&^_.+-") == ""
}

// ownTypes are the types of the JWTs that a Client signs with the Client
// Instance Key. Were attestations of such a type, one could pass for the other.
var ownTypes = []string{"oauth-client-attestation-pop+jwt", "dpop+jwt", typeAttestationRequest}

func (d Deviations) check() error {
	switch typ := strings.TrimPrefix(strings.ToLower(d.AttestationType), "application/"); {
	case d.AttestationType == "":
		return nil
	case !isMediaType(d.AttestationType):
		return fmt.Errorf("client: attestation type %.60q is no media type", d.AttestationType)
	case slices.Contains(ownTypes, typ):
		return fmt.Errorf("client: attestation type %.60q is that of another JWT", d.AttestationType)
	}
	return nil
}

func (r AttestRequest) typ() string { return cmp.Or(r.Type, typeAttestation) }

// checkSubject checks an attestation's "sub".
func (r AttestRequest) checkSubject(sub string) error {
	switch {
	case sub == "":
		return errors.New("it has no sub")
	case r.subject == nil && sub != r.ClientID:
		return fmt.Errorf("it is for client %.60q, this is %q", sub, r.ClientID)
	case r.subject == nil:
		return nil
	}
	if err := r.subject(sub); err != nil {
		return fmt.Errorf("its sub %.200q: %w", sub, err)
	}
	return nil
}
