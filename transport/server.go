package transport

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/instancekey/instancekey/internal/endpoint"
)

// A Server is an authorization server that the Transport authenticates to, and
// at the same time the whole list of places that credentials for it may go to.
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
}

// A Resource is a protected resource (RFC 9728) that the Transport sends
// attestations to, beside the access token that the caller puts into the
// Authorization field (draft, "Client Attestation as an Additional Security
// Signal").
type Resource struct {
	// Identifier is the resource identifier, byte for byte as the resource's
	// metadata has it: the "aud" of every PoP JWT. It is a URL, and the requests
	// for the resource are those to it and below it: same scheme, host and
	// port, and its path or one that continues it after a slash.
	Identifier string

	// ChallengeEndpoint is the URL that gives challenges. Empty if the resource
	// has none; it may then still give them with its responses.
	ChallengeEndpoint string

	// Method is MethodPoP or MethodDPoP. Empty means MethodPoP.
	Method Method

	// Unattested resources get no attestation. If the request's access token is
	// DPoP-bound, they get a DPoP proof.
	Unattested bool
}

// server is a Server or a Resource that has been checked, with what is
// remembered about it.
type server struct {
	audience   string // issuer or resource identifier
	origin     string
	method     Method
	profile    Profile
	locations  map[string]bool // endpoint.Location of a Server's endpoints; true where a DPoP proof goes beside the PoP JWT
	prefix     string          // endpoint.Location of a Resource; "" for a Server
	unattested bool
	challenges *challenges
	nonces     *challenges // DPoP nonces, which are kept like challenges; in draft -10's combined mode they are the challenges
}

func (t *Transport) newServer(s Server) (*server, error) {
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
	out, _, err := t.newAudience(s.Issuer, s.ChallengeEndpoint, s.Method, cmp.Or(s.Profile, ProfileDraft12))
	if err != nil {
		return nil, err
	}
	out.locations = make(map[string]bool, len(s.Endpoints))
	for _, raw := range s.Endpoints {
		u, err := endpoint.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("transport: an endpoint of %s %w", s.Issuer, err)
		}
		out.locations[endpoint.Location(u)] = t.dpop != nil && out.method == MethodPoP && slices.Contains(s.DPoPEndpoints, raw)
	}
	return out, nil
}

// checkApart refuses a server with an endpoint that is another's: requests to it
// could only be for one of them.
func (t *Transport) checkApart(s *server) error {
	for _, other := range t.servers {
		for location := range s.locations {
			if _, ok := other.locations[location]; ok {
				return fmt.Errorf("transport: %s and %s have the endpoint %s in common", other.audience, s.audience, location)
			}
		}
	}
	return nil
}

func (t *Transport) newResource(r Resource) (*server, error) {
	out, u, err := t.newAudience(r.Identifier, r.ChallengeEndpoint, r.Method, ProfileDraft12)
	if err != nil {
		return nil, err
	}
	out.prefix = endpoint.Location(u)
	out.unattested = r.Unattested
	return out, nil
}

// newAudience checks what servers and resources have in common.
func (t *Transport) newAudience(identifier, challengeEndpoint string, method Method, profile Profile) (*server, *url.URL, error) {
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
	out := &server{
		audience:   identifier,
		origin:     endpoint.Origin(u),
		method:     method,
		profile:    profile,
		challenges: &challenges{closed: t.closed, now: t.now},
		nonces:     &challenges{closed: t.closed, now: t.now, nonce: true},
	}
	if out.challengeIsNonce() {
		out.nonces = out.challenges
	}
	if challengeEndpoint != "" {
		at, err := endpoint.Parse(challengeEndpoint)
		if err != nil {
			return nil, nil, fmt.Errorf("transport: the challenge endpoint of %s %w", identifier, err)
		}
		t.setFetchers(out, at.String())
	}
	return out, u, nil
}

// sendsPoP reports whether requests to s carry a PoP JWT.
func (s *server) sendsPoP() bool { return s.method == MethodPoP && !s.unattested }

// matches reports whether a request to that endpoint.Location is for s.
func (s *server) matches(method, location string) bool {
	if s.prefix == "" {
		_, ok := s.locations[location]
		return ok && method == http.MethodPost
	}
	below, ok := strings.CutPrefix(location, s.prefix)
	return ok && (below == "" || below[0] == '/' || strings.HasSuffix(s.prefix, "/"))
}

// dpopSigner returns the key of the DPoP proof that a request to s carries, nil
// if it carries none of ours.
func (t *Transport) dpopSigner(s *server, req *http.Request) *signer {
	switch {
	case s.method == MethodDPoP && !s.unattested:
		return t.instance
	case s.prefix == "":
		if s.locations[endpoint.Location(req.URL)] {
			return t.dpop
		}
		return nil
	}
	// At a resource a proof goes with a token that is bound to its key.
	scheme, _ := accessToken(req)
	switch {
	case !strings.EqualFold(scheme, "DPoP"):
		return nil
	case s.method == MethodDPoP || t.dpop == nil:
		return t.instance
	default:
		return t.dpop
	}
}

// accessToken returns the access token of a request for a resource, "" if it
// has none.
func accessToken(req *http.Request) (scheme, token string) {
	scheme, token, _ = strings.Cut(req.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "DPoP") && !strings.EqualFold(scheme, "Bearer") {
		return "", ""
	}
	return scheme, strings.TrimLeft(token, " ")
}

// Authenticates reports whether a request with this method, URL and Host is one
// that RoundTrip authenticates, or refuses after Close.
func (t *Transport) Authenticates(req *http.Request) bool { return t.server(req) != nil }

// server returns the server or resource that req is for, nil if there is none.
// An authorization server's endpoint may be below a resource's identifier, and
// one resource below another: the more exact wins.
func (t *Transport) server(req *http.Request) *server {
	if req.URL == nil || req.URL.Opaque != "" {
		// net/http sends Opaque in place of the path that is compared here.
		return nil
	}
	if req.Host != "" && req.Host != req.URL.Host {
		// The connection goes to URL.Host, but what answers there by another
		// virtual host is not what the metadata named.
		return nil
	}
	if hasDotSegment(req.URL.Path) {
		// Servers and proxies resolve it, and it may lead out of the resource.
		return nil
	}
	location := endpoint.Location(req.URL)
	var found *server
	for _, s := range t.servers {
		if !s.matches(req.Method, location) {
			continue
		}
		if s.prefix == "" {
			return s
		}
		if found == nil || len(found.prefix) < len(s.prefix) {
			found = s
		}
	}
	return found
}

func hasDotSegment(path string) bool {
	isSeparator := func(r rune) bool { return r == '/' || r == '\\' } // which some servers take for a slash
	for segment := range strings.FieldsFuncSeq(path, isSeparator) {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// sharesOrigin reports whether u is on the origin of a server's issuer.
func (t *Transport) sharesOrigin(u *url.URL) bool {
	if u == nil {
		return false
	}
	origin := endpoint.Origin(u)
	return slices.ContainsFunc(t.servers, func(s *server) bool { return s.origin == origin })
}
