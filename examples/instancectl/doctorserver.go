// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/instancekey/instancekey/transport"
)

const grantDeviceURN = "urn:ietf:params:oauth:grant-type:device_code"

// examineServer examines what the server says of itself. It reports whether clients can
// work with it.
func (s *setup) examineServer(ctx context.Context) bool {
	const check = "issuer's metadata"
	_, err := s.client.Metadata(ctx)
	document := s.issuer.found()
	switch {
	case document == nil:
		s.noMetadata(err)
		return false
	case document.Issuer != s.flags.issuer:
		s.fail(check, fmt.Sprintf("if that is the server that is meant: -issuer %.200s", printable(document.Issuer)),
			"is for the issuer %.200q, which differs from -issuer: they must be the same, to the last slash", document.Issuer)
		return false
	}
	// The client refuses metadata that it cannot go by. Why says best what is looked at
	// one by one.
	listed := s.hold(func() {
		if method := s.method(document); method != "" {
			s.algorithms(document, method)
		}
	})
	if err != nil && !anyFailed(listed) {
		s.fail(check, "the server's operator has to mend its metadata", "cannot be used: %s", describe(err))
		return false
	}
	s.ok(check, "names -issuer")
	for _, f := range listed {
		s.report(f)
	}
	s.tokenEndpoint(ctx, document)
	s.challenges(ctx, document)
	s.grants(document)
	return err == nil && !anyFailed(listed)
}

// noMetadata says why there is none.
func (s *setup) noMetadata(err error) {
	const check = "issuer's metadata"
	first := s.issuer.first()
	switch {
	case first == nil:
		s.fail(check, reachAdvice(err), "the server cannot be asked: %v", err)
	case first.status/100 == 3:
		s.fail(check, "name the server itself with -issuer: clients follow no redirect", "%s redirects to %.200q", first.url, first.location)
	case first.status == http.StatusOK:
		s.fail(check, "correct -issuer; or something between here and the server answers for it, such as a proxy or a login page",
			"%s has something else, of the type %.60q", first.url, first.contentType)
	case first.status == http.StatusNotFound:
		s.fail(check, "correct -issuer, which may have a path (Keycloak's is https://HOST/realms/REALM), or have the server publish its metadata",
			"there is none at %s", s.places())
	default:
		s.fail(check, "ask the server's operator", "%s answers %d %s", first.url, first.status, http.StatusText(first.status))
	}
}

func (s *setup) places() string {
	var places []string
	for _, a := range s.issuer.answers {
		places = append(places, a.url)
	}
	return strings.Join(slices.Compact(places), " and ")
}

// method returns the method of client authentication that is used; "" if the server does
// not offer it.
func (s *setup) method(document *listed) (method transport.Method) {
	const check = "authentication method"
	lists := document.TokenEndpointAuthMethods
	wanted := methods[s.flags.method]
	of := func(m transport.Method) bool { return slices.Contains(lists, string(m)) }
	flag := map[transport.Method]string{transport.MethodPoP: "pop", transport.MethodDPoP: "dpop"}
	switch {
	case len(lists) == 0:
		if method = wanted; method == "" {
			method = transport.MethodPoP
		}
		s.ok(check, "the server does not list any: %s is used", method)
		return method
	case !of(transport.MethodPoP) && !of(transport.MethodDPoP):
		s.fail(check, "have attestation-based client authentication switched on at the server: it then lists attest_jwt_client_auth, attest_jwt_client_auth_dpop or both",
			"the server does not offer attestation: token_endpoint_auth_methods_supported is %.300q", lists)
		return ""
	case wanted == "" && of(transport.MethodPoP):
		method = transport.MethodPoP
	case wanted == "":
		method = transport.MethodDPoP
	case of(wanted):
		method = wanted
	default:
		other := transport.MethodPoP
		if wanted == other {
			other = transport.MethodDPoP
		}
		s.fail(check, "-method "+flag[other], "the server does not offer -method %s, only %s", s.flags.method, other)
		return ""
	}
	s.ok(check, "%s, which the server offers", method)
	return method
}

// algorithms compares those of the key's proofs with those that the server lists.
func (s *setup) algorithms(document *listed, method transport.Method) {
	const check = "proof algorithm"
	if s.key == nil {
		return
	}
	lists, member := document.AttestationPoPSigningAlgs, "client_attestation_pop_signing_alg_values_supported"
	if method == transport.MethodDPoP {
		lists, member = document.DPoPSigningAlgs, "dpop_signing_alg_values_supported"
	}
	if alg := s.key.Algorithm(); len(lists) > 0 && !slices.Contains(lists, alg) {
		advice := "have the server allow it"
		for _, mine := range []string{"ES256", "ES384"} {
			if slices.Contains(lists, mine) {
				advice = fmt.Sprintf("make the key with -alg %s (instancectl key create, under another -name)", mine)
			}
		}
		s.fail(check, advice, "the key's is %s, and %s is %.200q", alg, member, lists)
	} else {
		s.ok(check, "%s", alg)
	}
	switch {
	case !s.flags.dpop || method == transport.MethodDPoP:
	case len(document.DPoPSigningAlgs) == 0:
		s.warn("DPoP", "leave -dpop out if the tokens turn out to be of the type Bearer", "the server does not say whether it binds tokens to keys")
	case !slices.Contains(document.DPoPSigningAlgs, "ES256"):
		s.fail("DPoP", "leave -dpop out", "tokens would be bound by ES256, and the server takes %.200q", document.DPoPSigningAlgs)
	default:
		s.ok("DPoP", "the server binds tokens to keys")
	}
}

// tokenEndpoint looks whether it can be reached, and whose it is.
func (s *setup) tokenEndpoint(ctx context.Context, document *listed) {
	const check = "token endpoint"
	err := s.head(ctx, document.TokenEndpoint)
	issuer, _ := url.Parse(s.flags.issuer)
	endpoint, _ := url.Parse(document.TokenEndpoint)
	switch {
	case document.TokenEndpoint == "" || endpoint == nil: // said of the metadata
	case err != nil:
		s.fail(check, reachAdvice(err), "%s cannot be reached: %v", document.TokenEndpoint, err)
	case endpoint.Host != issuer.Host:
		s.warn(check, "see that this host belongs to the server: clients send attestations there", "%s is on another host than -issuer", document.TokenEndpoint)
	default:
		s.ok(check, "%s can be reached", document.TokenEndpoint)
	}
}

// challenges asks for one, as clients do.
func (s *setup) challenges(ctx context.Context, document *listed) {
	const check = "server's challenge"
	if document.ChallengeEndpoint == "" {
		s.ok(check, "the server has no endpoint for it: if it wants one, it says so when it refuses")
		return
	}
	var answer struct {
		Challenge string `json:"attestation_challenge"`
	}
	resp, err := s.post(ctx, document.ChallengeEndpoint, &answer)
	switch {
	case resp == nil:
		s.fail(check, reachAdvice(err), "%s cannot be reached: %v", document.ChallengeEndpoint, err)
	case resp.StatusCode != http.StatusOK || answer.Challenge == "":
		s.fail(check, "the server's operator has to mend challenge_endpoint in its metadata, or what is there",
			"%s answers %d without an attestation_challenge", document.ChallengeEndpoint, resp.StatusCode)
	default:
		s.ok(check, "is given")
	}
}

// grants compares -grant and -scope with what the server lists. A server need not list
// all of its scopes.
func (s *setup) grants(document *listed) {
	wanted := s.flags.grant
	if wanted == grantDevice {
		wanted = grantDeviceURN
	}
	switch {
	case wanted == grantDeviceURN && document.DeviceAuthorizationEndpoint == "":
		s.fail("grant", "have the server switch it on, or use another -grant", "the server has no device_authorization_endpoint")
	case len(document.Grants) > 0 && !slices.Contains(document.Grants, wanted):
		s.fail("grant", "have the server allow it, or use another -grant", "the server does not list %s: grant_types_supported is %.300q", wanted, document.Grants)
	default:
		s.ok("grant", "%s", s.flags.grant)
	}
	for _, scope := range strings.Fields(s.flags.scope) {
		if len(document.Scopes) > 0 && !slices.Contains(document.Scopes, scope) {
			s.warn("scope", "correct -scope, or ask the server's operator", "the server does not list %.60q: scopes_supported is %.300q", scope, document.Scopes)
		}
	}
}

// head sends a HEAD request. Whatever the answer is: servers need not have one.
func (s *setup) head(ctx context.Context, to string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, to, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := s.network.RoundTrip(req) // follows no redirect
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// post sends an empty request and reads a JSON answer, if it is one.
func (s *setup) post(ctx context.Context, to string, answer any) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := s.network.RoundTrip(req) // follows no redirect
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return resp, json.NewDecoder(io.LimitReader(resp.Body, maxFile)).Decode(answer)
}
