package transport

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"

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

// server is a Server that has been checked, with what is remembered about it.
type server struct {
	issuer     string
	origin     string // of the issuer, to notice requests that look as if they should match
	method     Method
	profile    Profile
	locations  map[string]bool // endpoint.Location of every endpoint; true where a DPoP proof goes beside the PoP JWT
	challenges *challenges
	nonces     nonces
}

func (t *Transport) newServer(s Server) (*server, error) {
	issuer, err := endpoint.Parse(s.Issuer)
	if err != nil {
		return nil, fmt.Errorf("transport: issuer: %w", err)
	}
	if len(s.Endpoints) == 0 {
		return nil, fmt.Errorf("transport: no endpoints of %s", s.Issuer)
	}
	out := &server{
		issuer:     s.Issuer,
		origin:     endpoint.Origin(issuer),
		method:     cmp.Or(s.Method, MethodPoP),
		profile:    cmp.Or(s.Profile, ProfileDraft12),
		locations:  make(map[string]bool, len(s.Endpoints)),
		challenges: &challenges{now: t.now},
	}
	if !s.Method.Known() {
		return nil, fmt.Errorf("transport: unknown method %.60q", s.Method)
	}
	if !s.Profile.Known() {
		return nil, fmt.Errorf("transport: unknown profile %.60q", s.Profile)
	}
	for _, raw := range s.Endpoints {
		u, err := endpoint.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("transport: endpoint of %s: %w", s.Issuer, err)
		}
		out.locations[endpoint.Location(u)] = t.dpop != nil && out.method == MethodPoP && slices.Contains(s.DPoPEndpoints, raw)
	}
	if s.ChallengeEndpoint != "" {
		u, err := endpoint.Parse(s.ChallengeEndpoint)
		if err != nil {
			return nil, fmt.Errorf("transport: challenge endpoint of %s: %w", s.Issuer, err)
		}
		out.challenges.fetch = t.challengeFetcher(out, u.String())
	}
	return out, nil
}

// usesChallenge reports whether freshness toward s comes from a challenge. In
// combined mode it comes from the DPoP nonce, which draft -10 took to be the
// challenge.
func (s *server) usesChallenge() bool { return s.method == MethodPoP || s.challengeIsNonce() }

func (s *server) challengeIsNonce() bool {
	return s.method == MethodDPoP && s.profile == ProfileDraft10
}

// dpopBeside reports whether a request to this URL carries a DPoP proof beside
// the PoP JWT.
func (s *server) dpopBeside(u *url.URL) bool { return s.locations[endpoint.Location(u)] }

// server returns the server that req authenticates to, nil if there is none.
func (t *Transport) server(req *http.Request) *server {
	if req.Method != http.MethodPost || req.URL == nil {
		return nil
	}
	if req.Host != "" && req.Host != req.URL.Host {
		// The connection goes to URL.Host, but what answers there by another
		// virtual host is not what the metadata named.
		return nil
	}
	location := endpoint.Location(req.URL)
	for _, s := range t.servers {
		if _, ok := s.locations[location]; ok {
			return s
		}
	}
	return nil
}

// sharesOrigin reports whether u is on the origin of a server's issuer.
func (t *Transport) sharesOrigin(u *url.URL) bool {
	if u == nil {
		return false
	}
	origin := endpoint.Origin(u)
	for _, s := range t.servers {
		if s.origin == origin {
			return true
		}
	}
	return false
}
