// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/instancekey/instancekey/examples/internal/serve"
	"github.com/instancekey/instancekey/internal/endpoint"
)

// ResourceConfig describes a protected resource. Identifier is required.
type ResourceConfig struct {
	// Identifier is the resource identifier (RFC 9728): a URL as an issuer is
	// one, or a path such as /resource for a URL on the issuer's origin. The
	// resource is everything at it and below it, whatever the method; its
	// challenge endpoint is /challenge below it.
	Identifier string
	// Methods are the proofs taken: MethodPoP, MethodDPoP. Nil means both.
	Methods []string
	// Challenges and DPoPNonces are as in Config, and apart from those.
	Challenges *ChallengeConfig
	DPoPNonces bool
	// DPoPRequired refuses bearer tokens.
	DPoPRequired bool
}

// A resource is a protected resource that asks for a Client Attestation beside
// an access token of this server (section 7.6).
type resource struct {
	*verifier
	config      ResourceConfig
	server      *Server // that issues the tokens, and whose policy holds here too
	path        string
	origin      string
	metadataURL string
}

// addResource adds the resource, its metadata and its challenge endpoint.
func (s *Server) addResource(config ResourceConfig, issuer *url.URL) error {
	if strings.HasPrefix(config.Identifier, "/") {
		config.Identifier = issuer.Scheme + "://" + issuer.Host + config.Identifier
	}
	identifier, err := endpoint.ParseIdentifier(config.Identifier)
	switch {
	case err != nil:
		return fmt.Errorf("resource identifier %w", err)
	case config.Challenges != nil && config.Challenges.Lifetime < 0:
		return errors.New("resource: a duration is negative")
	case len(config.Methods) == 0:
		config.Methods = []string{MethodPoP, MethodDPoP}
	}
	for _, method := range config.Methods {
		if popMethods[method] == "" {
			return fmt.Errorf("resource: unknown method %q", method)
		}
	}
	config.Methods = slices.Clone(config.Methods)
	own := s.cfg
	own.Challenges, own.DPoPNonces = config.Challenges.withDefaults(), config.DPoPNonces
	rs := &resource{
		verifier: newVerifier(own, config.Identifier, &s.trust),
		config:   config,
		server:   s,
		path:     identifier.Path,
		origin:   identifier.Scheme + "://" + identifier.Host,
	}
	const wellKnown = "/.well-known/oauth-protected-resource"
	inserted := *identifier
	if inserted.Path == "/" { // RFC 9728, section 3.1
		inserted.Path = ""
	}
	rs.metadataURL = rs.origin + wellKnown + inserted.EscapedPath()
	routes := serve.Routes{wellKnown + inserted.Path: {Method: http.MethodGet, Handler: rs.serveMetadata}}
	if rs.challengeEndpoint("") != "" {
		routes[strings.TrimSuffix(rs.path, "/")+"/challenge"] = serve.Route{Method: http.MethodPost, Handler: rs.serveChallenge}
	}
	for path, route := range routes {
		if _, taken := s.routes[path]; taken {
			return fmt.Errorf("resource: the authorization server has the path %s", path)
		}
		s.routes[path] = route
	}
	if _, taken := s.routes[rs.path]; taken {
		return fmt.Errorf("resource: the authorization server has the path %s", rs.path)
	}
	s.resource = rs
	return nil
}

// has reports whether a path is the resource's. Without a resource none is.
func (rs *resource) has(path string) bool {
	return rs != nil && (path == rs.path || strings.HasPrefix(path, strings.TrimSuffix(rs.path, "/")+"/"))
}

// ServeHTTP tells a caller whom the resource takes it for.
func (rs *resource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	rs.offer(w)
	token, err := rs.authorize(w, r)
	if err != nil {
		rs.writeRefusal(w, r, err)
		return
	}
	rs.cfg.Logger.LogAttrs(r.Context(), slog.LevelInfo, "resource served",
		slog.String("client_id", token.ClientID), slog.String("instance_key", token.InstanceKey))
	serve.JSON(w, http.StatusOK, map[string]string{
		"client_id": token.ClientID, "scope": token.Scope, "instance_key": token.InstanceKey,
	})
}

// authorize checks the access token, the attestation with its proof, and that
// all are one Client Instance's.
func (rs *resource) authorize(w http.ResponseWriter, r *http.Request) (*accessToken, error) {
	scheme, compact, err := credentials(r.Header)
	if err != nil {
		return nil, err
	}
	token, err := rs.server.verifyAccessToken(compact, rs.audience)
	if err != nil {
		return nil, err
	}
	if err := rs.checkScheme(scheme, token); err != nil {
		return nil, err
	}
	attestations := r.Header.Values(headerAttestation)
	if len(attestations) == 0 {
		return nil, refuse(errInvalidClientAttestation, "7.1(1)", "no %s header field", headerAttestation)
	}
	attestation, err := rs.verifyAttestation(attestations, token.ClientID)
	if err != nil {
		return nil, err
	}
	if attestation.thumbprint != token.InstanceKey {
		return nil, refuse(errInvalidToken, "resource", "access token was issued to another Client Instance")
	}
	made := target{r.Method, rs.origin + r.URL.EscapedPath(), compact}
	proof, err := rs.verifyProof(r, made, attestation, rs.allowMethod)
	if err != nil {
		return nil, err
	}
	if token.Confirmation != nil && token.Confirmation.Thumbprint != proof.dpopThumbprint {
		return nil, refuse(errInvalidToken, "RFC 9449 7.1", "access token is bound to another DPoP key than the proof's, or there is no proof")
	}
	if proof.reqHash != nil {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFormSize))
		if err != nil {
			return nil, refuse(errInvalidRequest, ruleReqHash, "body: %v", err)
		}
		if err := proof.checkReqHash(body); err != nil {
			return nil, err
		}
	}
	return token, attestation.appraise(rs.cfg.Now())
}
