// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Deviations are the points on which a profile of the draft may deviate from it,
// and no others (draft, "Considerations for Profiling this specification"): a
// workload identity's profile, for example, has attestations of type wit+jwt whose
// "sub" is a SPIFFE ID. All other checks of attestations and stored tokens stay.
// The zero value is the draft.
type Deviations struct {
	// AttestationType is the "typ" of attestations, which is compared as text.
	// Empty means the draft's, oauth-client-attestation+jwt. The type of
	// another JWT that a Client signs is an error of New.
	AttestationType string

	// CheckSubject decides whether attestations with this "sub" are this
	// client's, in place of the comparison with ClientID. Its error makes the
	// attestation ErrInvalidAttestation, and is wrapped. An attestation without
	// a sub does not come to it. One Client does not call it twice at the same
	// time. Nil means that sub must be ClientID.
	CheckSubject func(sub string) error

	// RefreshTokensOfAnyKey says that the profile binds refresh tokens to
	// something else than the Client Instance Key. Adopt then takes stored
	// tokens of other Client Instance Keys as well; issuer and client must be
	// this Client's all the same.
	RefreshTokensOfAnyKey bool
}

// mediaType is a media type or its subtype alone (RFC 6838, section 4.2).
var mediaType = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}(/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126})?$`)

// ownTypes are the types of the JWTs that a Client signs with the Client
// Instance Key. Were attestations of such a type, one could pass for the other.
var ownTypes = []string{"oauth-client-attestation-pop+jwt", "dpop+jwt", typeAttestationRequest}

func (d Deviations) check() error {
	switch typ := strings.TrimPrefix(strings.ToLower(d.AttestationType), "application/"); {
	case d.AttestationType == "":
		return nil
	case !mediaType.MatchString(d.AttestationType):
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
