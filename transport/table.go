// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"

	"github.com/instancekey/instancekey/internal/endpoint"
)

// A Server is an authorization server that the Transport authenticates to. Credentials
// for the server go to the URLs in it, and nowhere else.
type Server struct {
	// Issuer is the server's issuer identifier (RFC 8414), byte for byte as
	// its metadata has it: the "aud" of every PoP JWT.
	Issuer string

	// Endpoints are the URLs at which the client authenticates: token, pushed
	// authorization request, and so on. A request is authenticated if it is a
	// POST and its URL has scheme, host, port and path of one of them. They
	// must be https, or http on a loopback host. At least one is needed.
	Endpoints []string

	// ChallengeEndpoint is the URL that gives challenges (draft, "Challenge
	// Endpoint"). Empty if the server has none; it may then still give them
	// with its responses.
	ChallengeEndpoint string

	// Method is how the client authenticates: the one it is registered for at
	// this server. Empty means MethodPoP.
	Method Method

	// Profile is the form of the draft that the server speaks. Empty means
	// ProfileDraft12.
	Profile Profile

	// DPoPEndpoints are those of Endpoints where something is issued that can
	// be bound to a DPoP key (token and pushed authorization request endpoint).
	// With MethodPoP and a Config.DPoPKey, requests to them carry a DPoP proof
	// beside the PoP JWT.
	DPoPEndpoints []string

	// AttestationSigningAlgs are the JWS algorithms of attestations that the server
	// takes, by its metadata. Empty means that it does not say.
	AttestationSigningAlgs []string
}

// A Resource is a protected resource (RFC 9728) that the Transport sends
// attestations to, beside the access token that the caller puts into the
// Authorization field (draft, "Client Attestation as an Additional Security
// Signal").
type Resource struct {
	// Identifier is the resource identifier, byte for byte as the resource's
	// metadata has it: the "aud" of every PoP JWT. It is a URL, and the requests
	// for the resource are those to it and below it: same scheme, host and
	// port, and its path or one that continues it after a slash. Where one
	// resource is below another, the longer identifier counts.
	Identifier string

	// ChallengeEndpoint is the URL that gives challenges. Empty if the resource
	// has none; it may then still give them with its responses.
	ChallengeEndpoint string

	// Method is MethodPoP or MethodDPoP. Empty means MethodPoP.
	Method Method

	// Unattested resources get no attestation. If the request's access token is
	// DPoP-bound, they get a DPoP proof.
	Unattested bool

	// InstanceTokens says that the access tokens are bound to the Client Instance
	// Key, and not to Config.DPoPKey: their server is one with MethodDPoP.
	InstanceTokens bool

	// AttestationSigningAlgs are as those of a Server.
	AttestationSigningAlgs []string
}

// table is what a Transport authenticates to. It does not change: Update puts another
// one in its place.
type table struct {
	endpoints map[string]*audience // of servers, by endpoint.Location
	resources []*audience          // the longest path first
	former    map[string]string    // endpoints of tables before: location to issuer
}

// audience is a Server or a Resource that has been checked.
type audience struct {
	identifier  string // issuer or resource identifier
	origin      string
	method      Method
	profile     Profile
	signingAlgs []string
	isResource  bool
	prefix      *url.URL        // of a resource: its identifier
	bound       map[string]bool // of a server, by location: where a DPoP proof goes beside the PoP JWT
	unattested  bool
	tokens      *signer // at a resource: the key that its DPoP-bound tokens are bound to
	stock       *stock  // of proofs by the Client Instance Key
	*freshness
}

// maxFormer bounds how many former endpoints are kept in mind.
const maxFormer = 256

// Update replaces all servers and resources. What is known of the challenges and
// nonces of a server or resource stays, unless its challenge endpoint, method or
// profile is another one. Requests that are under way go on by what they began with.
// After an error nothing has changed.
//
// The Transport does not send a POST to a URL that was a server's endpoint and is none
// any more. Such a request was meant for the server, and contains what only the server
// may see. It fails with an *[Error] of [StepMetadata].
func (t *Transport) Update(servers []Server, resources []Resource) error {
	before, err := t.replace(servers, resources)
	if err != nil {
		return err
	}
	t.endAhead(before, errUpdated)
	return nil
}

// replace puts another table in the place of the one before, which it returns.
func (t *Transport) replace(servers []Server, resources []Resource) (before *table, err error) {
	t.update.Lock()
	defer t.update.Unlock()
	next, err := t.newTable(servers, resources)
	if err != nil {
		return nil, err
	}
	return t.table.Swap(next), nil
}

func (t *Transport) newTable(servers []Server, resources []Resource) (*table, error) {
	before := t.table.Load()
	next := &table{endpoints: make(map[string]*audience), former: make(map[string]string)}
	seen := make(map[string]bool)
	for _, s := range servers {
		a, err := t.newServer(s)
		if err != nil {
			return nil, err
		}
		if seen[s.Issuer] {
			return nil, fmt.Errorf("transport: server %.200q is there twice", s.Issuer)
		}
		seen[s.Issuer] = true
		for location := range a.bound {
			if other := next.endpoints[location]; other != nil {
				return nil, fmt.Errorf("transport: %s and %s have the endpoint %s in common", other.identifier, a.identifier, location)
			}
			next.endpoints[location] = a
		}
	}
	for _, r := range resources {
		a, err := t.newResource(r)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(next.resources, func(other *audience) bool { return endpoint.Location(other.prefix) == endpoint.Location(a.prefix) }) {
			return nil, fmt.Errorf("transport: resource %.200q is there twice", r.Identifier)
		}
		next.resources = append(next.resources, a)
	}
	slices.SortFunc(next.resources, func(a, b *audience) int { return len(b.prefix.EscapedPath()) - len(a.prefix.EscapedPath()) })
	next.takeOver(before)
	return next, nil
}

// takeOver keeps what is known of audiences that stay, and which endpoints there were.
func (next *table) takeOver(before *table) {
	if before == nil {
		return
	}
	known := make(map[string]*freshness)
	for a := range before.audiences() {
		known[a.state()] = a.freshness
	}
	for a := range next.audiences() {
		if kept := known[a.state()]; kept != nil {
			a.freshness = kept
		}
	}
	for location, a := range before.endpoints {
		if next.endpoints[location] == nil {
			next.former[location] = a.identifier
		}
	}
	for location, issuer := range before.former {
		if next.endpoints[location] == nil && len(next.former) < maxFormer {
			next.former[location] = issuer
		}
	}
}

// audiences yields those of a server once for each of its endpoints.
func (t *table) audiences() func(yield func(*audience) bool) {
	return func(yield func(*audience) bool) {
		for _, a := range t.endpoints {
			if !yield(a) {
				return
			}
		}
		for _, a := range t.resources {
			if !yield(a) {
				return
			}
		}
	}
}

// state names what a's freshness depends on.
func (a *audience) state() string {
	return fmt.Sprintf("%t %q %q %s %s", a.isResource, a.identifier, a.freshness.endpoint, a.method, a.profile)
}

func (t *Transport) newServer(s Server) (*audience, error) {
	if !s.Profile.Known() {
		return nil, fmt.Errorf("transport: unknown profile %.60q", s.Profile)
	}
	if s.Profile.HasIssuer() && t.clientID == "" {
		return nil, fmt.Errorf("transport: profile %s needs the client_id", s.Profile)
	}
	if len(s.Endpoints) == 0 {
		return nil, fmt.Errorf("transport: no endpoints of %s", s.Issuer)
	}
	for _, raw := range s.DPoPEndpoints {
		if !slices.Contains(s.Endpoints, raw) {
			return nil, fmt.Errorf("transport: DPoP endpoint of %s is none of its endpoints", s.Issuer)
		}
	}
	a, _, err := t.newAudience(s.Issuer, s.ChallengeEndpoint, s.Method, cmp.Or(s.Profile, ProfileDraft12))
	if err != nil {
		return nil, err
	}
	a.signingAlgs = slices.Clone(s.AttestationSigningAlgs)
	a.bound = make(map[string]bool, len(s.Endpoints))
	for _, raw := range s.Endpoints {
		u, err := endpoint.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("transport: an endpoint of %s %w", s.Issuer, err)
		}
		location := endpoint.Location(u)
		if _, twice := a.bound[location]; twice {
			return nil, fmt.Errorf("transport: %s has the endpoint %s twice", s.Issuer, location)
		}
		a.bound[location] = t.dpop != nil && a.method == MethodPoP && slices.Contains(s.DPoPEndpoints, raw)
	}
	return a, nil
}

func (t *Transport) newResource(r Resource) (*audience, error) {
	a, u, err := t.newAudience(r.Identifier, r.ChallengeEndpoint, r.Method, ProfileDraft12)
	if err != nil {
		return nil, err
	}
	a.signingAlgs = slices.Clone(r.AttestationSigningAlgs)
	a.isResource, a.prefix, a.unattested = true, u, r.Unattested
	if a.tokens = t.dpop; t.dpop == nil || r.InstanceTokens {
		a.tokens = t.instance
	}
	return a, nil
}

// newAudience checks what servers and resources have in common.
func (t *Transport) newAudience(identifier, challengeEndpoint string, method Method, profile Profile) (*audience, *url.URL, error) {
	u, err := endpoint.Parse(identifier)
	if err != nil {
		return nil, nil, fmt.Errorf("transport: issuer or resource identifier %w", err)
	}
	if !method.Known() {
		return nil, nil, fmt.Errorf("transport: unknown method %.60q", method)
	}
	method = cmp.Or(method, MethodPoP)
	if t.bindBody && method != MethodPoP {
		return nil, nil, fmt.Errorf("transport: BindBody needs %s, %s is to use %s", MethodPoP, identifier, method)
	}
	if challengeEndpoint != "" {
		at, err := endpoint.Parse(challengeEndpoint)
		if err != nil {
			return nil, nil, fmt.Errorf("transport: the challenge endpoint of %s %w", identifier, err)
		}
		challengeEndpoint = at.String()
	}
	a := &audience{identifier: identifier, origin: endpoint.Origin(u), method: method, profile: profile, stock: new(stock)}
	a.freshness = t.newFreshness(identifier, challengeEndpoint, a.challengeIsNonce())
	return a, u, nil
}

// sendsPoP reports whether requests to a carry a PoP JWT.
func (a *audience) sendsPoP() bool { return a.method == MethodPoP && !a.unattested }

// challengeIsNonce reports whether challenge and DPoP nonce are one value, as
// draft -10 has it in combined mode.
func (a *audience) challengeIsNonce() bool {
	return a.method == MethodDPoP && a.profile == ProfileDraft10
}
