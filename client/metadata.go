// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bufio"
	"context"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"

	"github.com/instancekey/instancekey/internal/endpoint"
	"github.com/instancekey/instancekey/transport"
)

// Metadata is what a Client uses of an authorization server's metadata (RFC
// 8414, section 2; draft, "Authorization Server Metadata"). All endpoints
// that it authenticates to are https, or http on a loopback host if the issuer is that too.
type Metadata struct {
	// Issuer is the issuer identifier, byte for byte that of Config.Issuer.
	Issuer string `json:"issuer"`

	// The endpoints, empty where the server has none: those of RFC 8414, RFC
	// 9126 (pushed authorization requests), RFC 8628 (devices), OpenID Connect
	// CIBA (backchannel), and the draft (challenges). TokenEndpoint is required.
	AuthorizationEndpoint              string `json:"authorization_endpoint,omitempty"`
	TokenEndpoint                      string `json:"token_endpoint,omitempty"`
	PushedAuthorizationRequestEndpoint string `json:"pushed_authorization_request_endpoint,omitempty"`
	DeviceAuthorizationEndpoint        string `json:"device_authorization_endpoint,omitempty"`
	BackchannelAuthenticationEndpoint  string `json:"backchannel_authentication_endpoint,omitempty"`
	IntrospectionEndpoint              string `json:"introspection_endpoint,omitempty"`
	RevocationEndpoint                 string `json:"revocation_endpoint,omitempty"`
	ChallengeEndpoint                  string `json:"challenge_endpoint,omitempty"`

	// UserinfoEndpoint is OpenID Connect's, as the metadata has it, unchecked: it takes
	// no client authentication, only an access token.
	UserinfoEndpoint string `json:"userinfo_endpoint,omitempty"`

	// What the server supports; empty means that it does not say: methods of
	// client authentication (RFC 8414), algorithms of attestations and PoP JWTs
	// and ways to send a PoP (draft), and algorithms of DPoP proofs (RFC 9449).
	TokenEndpointAuthMethods  []string `json:"token_endpoint_auth_methods_supported,omitempty"`
	AttestationSigningAlgs    []string `json:"client_attestation_signing_alg_values_supported,omitempty"`
	AttestationPoPSigningAlgs []string `json:"client_attestation_pop_signing_alg_values_supported,omitempty"`
	PoPMethods                []string `json:"client_attestation_pop_methods_supported,omitempty"`
	DPoPSigningAlgs           []string `json:"dpop_signing_alg_values_supported,omitempty"`
}

// ErrMetadata: the Client cannot get or cannot use the metadata of the authorization
// server or of a resource. The Client has signed nothing for that server, and has sent it
// nothing but requests for metadata. If the server gave no answer, or one that is not its
// metadata, the error is also of type *[transport.Error] with Step "get metadata". That
// error tells whether to try again.
var ErrMetadata = errors.New("client: metadata")

const maxMetadata = 1 << 20 // bytes

// timeTimeout bounds a request for the time, for which an attestation waits.
const timeTimeout = 10 * time.Second

// fetchServer fetches the metadata of the issuer from the place of RFC 8414, else
// from that of OpenID Connect Discovery.
func (c *Client) fetchServer(ctx context.Context) (*server, error) {
	places, err := c.wellKnown()
	if err != nil {
		return nil, err
	}
	var failed error
	for i, place := range places {
		var metadata Metadata
		err := c.fetchMetadata(ctx, place, "issuer", &metadata)
		if err == nil {
			err = metadata.check(c.issuer, c.origins)
		}
		if err == nil {
			s, err := c.newServer(&metadata)
			if err == nil {
				s.second = i > 0
			}
			return s, err
		}
		var absent *absence
		goOn := errors.As(err, &absent) && !absent.busy()
		err = fmt.Errorf("from %s: %w", place, err)
		switch {
		case failed == nil:
			failed = err
		case absent != nil && absent.code == http.StatusNotFound: // which says the least
			failed = fmt.Errorf("%w; %v", failed, err)
		default:
			failed = fmt.Errorf("%v; %w", failed, err)
		}
		if !goOn {
			break
		}
	}
	return nil, c.metadataError(c.issuer, failed)
}

// wellKnown returns the places where the issuer's metadata may be, the best
// first.
func (c *Client) wellKnown() ([]string, error) {
	u, err := endpoint.Parse(c.issuer)
	if err != nil {
		return nil, err
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	origin := u.Scheme + "://" + u.Host
	return []string{
		origin + "/.well-known/oauth-authorization-server" + path,
		origin + path + "/.well-known/openid-configuration",
	}, nil
}

// askTime sends the issuer a request for nothing but the Date of its answer,
// whatever that is, which the clock learns from. It does so only if there is
// reason to doubt the clock.
func (c *Client) askTime(ctx context.Context) {
	if !c.clock.inDoubt() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeTimeout)
	defer cancel()
	places, err := c.wellKnown()
	if err == nil {
		err = c.fetchMetadata(ctx, places[0], "issuer", new(struct{}))
	}
	if absent := (*absence)(nil); err == nil || errors.As(err, &absent) {
		c.log.InfoContext(ctx, "client: asked the issuer for the time", "issuer", c.issuer)
		return
	}
	c.log.WarnContext(ctx, "client: asked the issuer for the time, without an answer", "issuer", c.issuer, "error", err)
}

// absence: there was an answer, and it is not metadata, be it right or wrong.
type absence struct {
	code int // HTTP status
}

func (a *absence) Error() string {
	if a.code == http.StatusOK {
		return "the answer is not metadata"
	}
	return fmt.Sprintf("server answered %d %s", a.code, http.StatusText(a.code))
}

// passes reports whether the answer says nothing of what is there.
func (a *absence) passes() bool {
	return a.busy() || a.code >= 500 && a.code != http.StatusNotImplemented
}

// busy reports whether the server asks to come again later. A gateway's word does not
// count: it may have nothing behind it for this one place.
func (a *absence) busy() bool {
	switch a.code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable:
		return true
	}
	return false
}

// unreachable is an error of the network, which may pass.
type unreachable struct{ error }

func (e unreachable) Unwrap() error { return e.error }
func (unreachable) Temporary() bool { return true }

// metadataError is an ErrMetadata that tells what has failed as a
// transport.Error too.
type metadataError struct{ failure *transport.Error }

func (e metadataError) Error() string   { return fmt.Sprintf("%v %v", ErrMetadata, e.failure.Err) }
func (e metadataError) Unwrap() []error { return []error{ErrMetadata, e.failure} }

// metadataError returns the error for metadata of that issuer or resource.
func (c *Client) metadataError(audience string, err error) error {
	failure := &transport.Error{Audience: audience, Thumbprint: c.thumbprint, Step: transport.StepMetadata, Err: err}
	if absent := (*absence)(nil); errors.As(err, &absent) && absent.code != http.StatusOK {
		failure.Status = absent.code
	}
	return metadataError{failure}
}

// fetchMetadata reads a metadata document from place. A JSON object is one if it has
// the member that names whose it is. Everything else is an *absence: pages, and the
// answers of proxies, tell nothing.
func (c *Client) fetchMetadata(ctx context.Context, place, member string, metadata any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	// Not through an http.Client: it would follow redirects, and the check of
	// the document is only worth something if its own server has answered.
	resp, err := c.base.RoundTrip(req)
	if err != nil {
		return unreachable{err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &absence{resp.StatusCode}
	}
	body := bufio.NewReader(io.LimitReader(resp.Body, maxMetadata+1))
	isObject, err := beginsObject(body)
	if err != nil {
		return unreachable{err}
	}
	if !isObject {
		return &absence{resp.StatusCode}
	}
	content, err := io.ReadAll(body)
	if err != nil {
		return unreachable{err}
	}
	if len(content) > maxMetadata {
		return fmt.Errorf("more than %d bytes", maxMetadata)
	}
	var members map[string]stdjson.RawMessage
	if stdjson.Unmarshal(content, &members) != nil || members[member] == nil {
		return &absence{resp.StatusCode}
	}
	if err := json.Unmarshal(content, metadata); err != nil {
		return fmt.Errorf("not a usable JSON object: %w", err)
	}
	return nil
}

// beginsObject reports whether what is to be read begins as a JSON object does. White
// space before it is read over.
func beginsObject(r *bufio.Reader) (bool, error) {
	for range 4 << 10 {
		c, err := r.ReadByte()
		switch {
		case err == io.EOF:
			return false, nil
		case err != nil:
			return false, err
		case !strings.ContainsRune(" \t\r\n", rune(c)):
			return c == '{', r.UnreadByte()
		}
	}
	return false, nil
}

// check refuses metadata that is not the issuer's own or would send
// credentials to a place that must not have them. origins are those that
// endpoints may have; none means any.
func (m *Metadata) check(issuer string, origins []string) error {
	if m.Issuer != issuer {
		// RFC 8414, section 3.3: identical, also in a trailing slash.
		return fmt.Errorf("it is for issuer %.200q, configured is %q: they must be identical", m.Issuer, issuer)
	}
	if m.TokenEndpoint == "" {
		return errors.New("it has no token_endpoint")
	}
	own, err := endpoint.Parse(issuer)
	if err != nil {
		return err
	}
	for name, raw := range m.urls() {
		if raw == "" {
			continue
		}
		u, err := endpoint.Parse(raw)
		if err == nil && own.Scheme == "https" && u.Scheme != "https" {
			err = errors.New("is http, the issuer is https")
		}
		if err == nil && len(origins) > 0 && !hasOrigin(origins, u) {
			err = fmt.Errorf("is on %s, which is none of Config.Origins", endpoint.Origin(u))
		}
		if err != nil {
			return fmt.Errorf("its %s %w", name, err)
		}
	}
	return nil
}

func hasOrigin(origins []string, u *url.URL) bool {
	return slices.ContainsFunc(origins, func(origin string) bool {
		o, err := url.Parse(origin)
		return err == nil && endpoint.Origin(o) == endpoint.Origin(u)
	})
}

// foreign returns the names of the endpoints that take client authentication on
// another origin than the issuer's.
func (m *Metadata) foreign() []string {
	issuer, err := url.Parse(m.Issuer)
	if err != nil {
		return nil
	}
	var names []string
	for name, raw := range m.authenticated() {
		if u, err := url.Parse(raw); raw != "" && err == nil && endpoint.Origin(u) != endpoint.Origin(issuer) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// urls returns every URL in the metadata by its name there.
func (m *Metadata) urls() map[string]string {
	urls := m.authenticated()
	urls["authorization_endpoint"] = m.AuthorizationEndpoint
	urls["challenge_endpoint"] = m.ChallengeEndpoint
	return urls
}

// authenticated returns the endpoints that take client authentication.
func (m *Metadata) authenticated() map[string]string {
	return map[string]string{
		"token_endpoint":                        m.TokenEndpoint,
		"pushed_authorization_request_endpoint": m.PushedAuthorizationRequestEndpoint,
		"device_authorization_endpoint":         m.DeviceAuthorizationEndpoint,
		"backchannel_authentication_endpoint":   m.BackchannelAuthenticationEndpoint,
		"introspection_endpoint":                m.IntrospectionEndpoint,
		"revocation_endpoint":                   m.RevocationEndpoint,
	}
}

// dpopEndpoints returns the endpoints that issue what can be bound to a DPoP
// key.
func (m *Metadata) dpopEndpoints() []string {
	if m.PushedAuthorizationRequestEndpoint == "" {
		return []string{m.TokenEndpoint}
	}
	return []string{m.TokenEndpoint, m.PushedAuthorizationRequestEndpoint}
}

// checkIssuer refuses what cannot be an issuer identifier (RFC 8414, section 2).
func checkIssuer(issuer string) (*url.URL, error) {
	if issuer == "" {
		return nil, errors.New("client: no issuer")
	}
	u, err := endpoint.ParseIdentifier(issuer)
	if err != nil {
		return nil, fmt.Errorf("client: issuer %w", err)
	}
	return u, nil
}
