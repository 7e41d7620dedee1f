// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/instancekey/instancekey/internal/endpoint"
	"github.com/instancekey/instancekey/transport"
)

// resourceMetadata is what a Client uses of a protected resource's metadata
// (RFC 9728, section 2; draft, "Authorization Server Metadata", which has these
// for resources too).
type resourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	ChallengeEndpoint    string   `json:"challenge_endpoint"`

	PoPMethods                []string `json:"client_attestation_pop_methods_supported"`
	AttestationSigningAlgs    []string `json:"client_attestation_signing_alg_values_supported"`
	AttestationPoPSigningAlgs []string `json:"client_attestation_pop_signing_alg_values_supported"`
	DPoPSigningAlgs           []string `json:"dpop_signing_alg_values_supported"`
	DPoPRequired              bool     `json:"dpop_bound_access_tokens_required"`
}

// resourceMetadata returns the metadata at place, nil if there is none: a
// resource need not have any, and many answer 401 to every path they do not
// know. A proxy may have said so, and certain is false then.
func (c *Client) resourceMetadata(ctx context.Context, identifier, place string) (m *resourceMetadata, certain bool, err error) {
	var metadata resourceMetadata
	err = c.fetchMetadata(ctx, place, "resource", &metadata)
	var absent *absence
	if errors.As(err, &absent) && !absent.passes() {
		return nil, false, nil
	}
	if err == nil {
		err = c.checkResource(ctx, &metadata, identifier)
	}
	if err != nil {
		return nil, false, err
	}
	return &metadata, true, nil
}

// checkResource refuses metadata that is not the resource's own (RFC 9728,
// section 3.3) or asks for what this Client is not set up for.
func (c *Client) checkResource(ctx context.Context, m *resourceMetadata, identifier string) error {
	if m.Resource != identifier {
		return fmt.Errorf("it is for resource %.200q, configured is %q: they must be identical", m.Resource, identifier)
	}
	own, err := endpoint.Parse(identifier)
	if err != nil {
		return err
	}
	if at, err := url.Parse(m.ChallengeEndpoint); m.ChallengeEndpoint != "" && (err != nil || own.Scheme == "https" && at.Scheme != "https") {
		return errors.New("its challenge_endpoint is not https")
	}
	if m.DPoPRequired && c.dpopKey == nil {
		method, err := c.settledMethod(ctx)
		if err != nil {
			return err
		}
		if method != transport.MethodDPoP {
			return errors.New("it takes DPoP-bound tokens only: set Config.DPoP")
		}
	}
	if len(m.AuthorizationServers) > 0 && !slices.Contains(m.AuthorizationServers, c.issuer) {
		c.log.WarnContext(ctx, "client: the resource does not name this issuer among its authorization servers", "resource", identifier, "issuer", c.issuer)
	}
	return nil
}
