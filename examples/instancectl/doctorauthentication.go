// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
)

// A trial is a request that a server authenticates and that has no effect: it is about a
// token that does not exist.
type trial struct {
	doing, endpoint string
	form            url.Values
	passed          []string // error codes of a client that was authenticated
}

// newTrial chooses the most harmless one that the server has.
func newTrial(server client.Metadata, clientID string) trial {
	invented := rand.Text()
	form := url.Values{"client_id": {clientID}, "token": {invented}}
	switch {
	case server.IntrospectionEndpoint != "":
		return trial{"introspection of a token that does not exist", server.IntrospectionEndpoint, form, nil}
	case server.RevocationEndpoint != "":
		return trial{"revocation of a token that does not exist", server.RevocationEndpoint, form, nil}
	}
	form = url.Values{"client_id": {clientID}, "grant_type": {"refresh_token"}, "refresh_token": {invented}}
	return trial{"refresh of a token that does not exist", server.TokenEndpoint, form, []string{"invalid_grant", "unauthorized_client"}}
}

// examineAuthentication authenticates at the server.
func (s *setup) examineAuthentication(ctx context.Context) {
	const check = "client authentication"
	server, err := s.client.Metadata(ctx)
	if err != nil {
		return // said before
	}
	t := newTrial(server, s.flags.clientID)
	refusal, err := t.run(ctx, s.client.HTTPClient())
	switch {
	case err != nil:
		s.fail(check, reachAdvice(err), "%s", describe(err))
	case refusal == nil:
		s.ok(check, "the server knows the client and takes its attestation (%s)", t.doing)
	case refusal.ErrorCode == "unsupported_grant_type" && s.demandsAuthentication(ctx, t):
		s.ok(check, "the server takes the attestation (%s, which it does not do)", t.doing)
	case refusal.ErrorCode == "unsupported_grant_type":
		s.warn(check, "whether it takes the attestation shows with the first token", "the server does not do the %s, and was asked nothing else", t.doing)
	default:
		s.fail(check, s.refusalAdvice(ctx, t, refusal), "%s", describe(refusal))
	}
}

func (t trial) request(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.endpoint, strings.NewReader(t.form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// run returns the server's refusal, nil if it authenticated the client.
func (t trial) run(ctx context.Context, hc *http.Client) (*oauth2.RetrieveError, error) {
	req, err := t.request(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil, nil
	}
	refusal := &oauth2.RetrieveError{Response: resp}
	refusal.ErrorCode, refusal.ErrorDescription = transport.Refused(resp)
	for _, code := range t.passed {
		if refusal.ErrorCode == code {
			return nil, nil
		}
	}
	return refusal, nil
}

// demandsAuthentication reports whether the server refuses the trial in another way if
// there is no authentication: then what it says otherwise comes after that.
func (s *setup) demandsAuthentication(ctx context.Context, t trial) bool {
	req, err := t.request(ctx)
	if err != nil {
		return false
	}
	resp, err := s.network.RoundTrip(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var answer struct {
		Error string `json:"error"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, maxFile)).Decode(&answer)
	return err == nil && resp.StatusCode/100 == 4 && strings.HasPrefix(answer.Error, "invalid_client")
}

// refusalAdvice says what to type if another -profile or -method passes, and otherwise what
// is mostly the matter.
func (s *setup) refusalAdvice(ctx context.Context, t trial, refusal *oauth2.RetrieveError) string {
	if advice := client.Advice(refusal); advice != "" {
		return advice
	}
	if flags := s.passes(ctx, t); flags != "" {
		return "use " + flags + ", which the server takes"
	}
	switch refusal.ErrorCode {
	case "invalid_client_attestation", "invalid_client":
		other := ""
		if alg := s.key.Algorithm(); alg != "ES256" {
			other = fmt.Sprintf("older servers take no %s: try -alg ES256 with another -name; or ", alg)
		}
		return other + fmt.Sprintf("see that the server has a client %.60q, registered as instancectl register shows, and trusts the attester's key%s; its log says which", s.flags.clientID, s.attesterKeys())
	case "use_fresh_attestation":
		return "let the attester attest anew each time it is asked, and compare the clocks of attester and server"
	case "":
		return "see what is at " + t.endpoint + ": perhaps a proxy answers in the server's place"
	}
	return "the server's log says more"
}

// attesterKeys says where the key is that the server has to trust.
func (s *setup) attesterKeys() string {
	switch {
	case s.flags.attester != "":
		return " (" + strings.TrimSuffix(s.flags.attester, "/") + "/jwks has it, if it is the reference attester)"
	case s.flags.self != "":
		return " (the public half of " + s.flags.self + ")"
	}
	return ""
}

// passes tries the other profiles, and the other method where the server offers it. It
// returns the flags that the server takes, "" for none.
func (s *setup) passes(ctx context.Context, t trial) string {
	try := func(change func(*clientFlags)) bool {
		flags := s.flags.clientFlags
		change(&flags)
		metadata, err := s.client.Metadata(ctx)
		if err != nil {
			return false
		}
		c, err := s.newClient(ctx, flags, &metadata)
		if err != nil {
			return false
		}
		defer c.Close()
		refusal, err := t.run(ctx, c.HTTPClient())
		// The grant is looked at after the authentication, which was refused before.
		return err == nil && (refusal == nil || refusal.ErrorCode == "unsupported_grant_type")
	}
	for _, profile := range []string{"draft-12", "draft-10", "oid4vci-1", "keycloak"} {
		if profile != s.flags.profile && try(func(f *clientFlags) { f.profile = profile }) {
			return "-profile " + profile
		}
	}
	for _, method := range []string{"pop", "dpop"} {
		if method != s.flags.method && try(func(f *clientFlags) { f.method = method }) {
			return "-method " + method
		}
	}
	return ""
}
