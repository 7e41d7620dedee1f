// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/instancekey/instancekey/internal/endpoint"
)

// A Resource is a protected resource (RFC 9728) that this Client calls with its access
// tokens. Requests for it get the proofs that it wants, beside the access token in the
// Authorization field.
type Resource struct {
	// Identifier is the resource identifier, byte for byte as the resource's metadata
	// has it: an https URL, or http on a loopback host. The requests for the resource
	// are those to it and below it. Required.
	Identifier string

	// Attestation says whether the requests carry the attestation and a proof by the
	// Client Instance Key. The zero value, AttestListed, leaves it to the resource's
	// metadata.
	Attestation ResourceAttestation

	// OmitParameter leaves the resource out of the "resource" parameters (RFC 8707) of
	// Token and TokenFor, for a server that does not know it by that name and answers
	// invalid_target. False means that it is asked for. The issuer's own userinfo
	// endpoint, which the scope openid is for, is never asked for.
	OmitParameter bool
}

// ResourceAttestation says when requests for a resource carry an attestation. Without
// one, a request with a DPoP-bound access token has a DPoP proof, by the key that the
// token is bound to (RFC 9449, section 7), and one with a bearer token has no proof.
type ResourceAttestation int

const (
	// AttestListed: if the resource's metadata lists in
	// client_attestation_pop_methods_supported a method that this package has. An
	// ordinary API gets no attestation, and costs no signature of the Client Instance
	// Key unless its tokens are bound to that. The zero value.
	AttestListed ResourceAttestation = iota
	// AttestAlways: also if the resource has no metadata, or metadata that lists no
	// such method. The method is then Config.Method, or the PoP JWT.
	AttestAlways
	// AttestNever: whatever its metadata says, which is not asked for.
	AttestNever
)

// checkResources finds what is wrong with Config.Resources.
func checkResources(resources []Resource) error {
	locations := make(map[string]bool)
	for _, r := range resources {
		u, err := parseResource(r.Identifier)
		if err != nil {
			return err
		}
		if r.Attestation < AttestListed || r.Attestation > AttestNever {
			return fmt.Errorf("client: resource %.200q: unknown Attestation setting %d", r.Identifier, r.Attestation)
		}
		location := resourceLocation(u)
		if locations[location] {
			return fmt.Errorf("client: resource %.200q is configured twice", r.Identifier)
		}
		locations[location] = true
	}
	return nil
}

func parseResource(identifier string) (*url.URL, error) {
	u, err := endpoint.ParseIdentifier(identifier)
	if err != nil {
		return nil, fmt.Errorf("client: resource identifier %w", err)
	}
	return u, nil
}

// resourceLocation is equal for identifiers that the same requests are for.
func resourceLocation(u *url.URL) string { return strings.TrimSuffix(endpoint.Location(u), "/") }

// ResourceParameters returns the values of the parameter "resource" (RFC 8707) that Token
// sends. Use them for a grant that golang.org/x/oauth2 runs: put them into the
// authorization request or the device authorization request, and into the token request.
// The token is then good for these resources. There may be no values. Errors are those of
// [Client.Metadata].
func (c *Client) ResourceParameters(ctx context.Context) ([]string, error) {
	defer c.clock.tell(ctx)
	s, err := c.server(ctx)
	if err != nil {
		return nil, err
	}
	return s.parameters(c.resources), nil
}

// parameters returns the "resource" parameters of a token for these resources.
func (s *server) parameters(resources []*resource) []string {
	var userinfo string
	if u, err := url.Parse(s.metadata.UserinfoEndpoint); err == nil {
		userinfo = resourceLocation(u)
	}
	var parameters []string
	for _, r := range resources {
		if u, err := url.Parse(r.Identifier); err == nil && !r.OmitParameter && resourceLocation(u) != userinfo {
			parameters = append(parameters, r.Identifier)
		}
	}
	return parameters
}
