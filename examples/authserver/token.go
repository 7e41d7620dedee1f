// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/instancekey/instancekey/examples/internal/serve"
)

const (
	grantClientCredentials = "client_credentials"
	grantRefreshToken      = "refresh_token"
	grantCode              = "authorization_code"
)

const maxFormSize = 64 << 10

// tokenResponse: RFC 6749, section 5.1.
type tokenResponse struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	RefreshToken string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope,omitempty"`
}

// serveToken is the token endpoint (RFC 6749, section 3.2).
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	s.verifier.offer(w)
	response, err := s.grantToken(w, r)
	if err != nil {
		s.writeRefusal(r.Context(), w, "token request", err)
		return
	}
	serve.JSON(w, http.StatusOK, response)
}

func (s *Server) grantToken(w http.ResponseWriter, r *http.Request) (*tokenResponse, error) {
	form, err := readForm(w, r)
	if err != nil {
		return nil, err
	}
	instance, err := s.authenticate(r, s.tokenEndpoint, form)
	if err != nil {
		return nil, err
	}

	var response *tokenResponse
	switch grantType := form.Get("grant_type"); {
	case grantType == grantClientCredentials:
		response, err = s.grantClientCredentials(instance, form)
	case grantType == grantRefreshToken && s.cfg.RefreshTokens:
		response, err = s.grantRefresh(instance, form)
	case grantType == grantCode && s.grantsCodes():
		response, err = s.grantCode(instance, form)
	case grantType == "":
		err = refuse(errInvalidRequest, "RFC 6749 4", "no grant_type")
	default:
		err = refuse(errUnsupportedGrantType, "RFC 6749 5.2", "grant_type %.40q", grantType)
	}
	if err != nil {
		return nil, err
	}
	s.cfg.Logger.LogAttrs(r.Context(), slog.LevelInfo, "token issued",
		slog.String("client_id", instance.client.ID), slog.String("grant_type", form.Get("grant_type")),
		slog.String("token_type", response.TokenType), slog.String("instance_key", instance.thumbprint))
	return response, nil
}

// A form is the body of a request to an endpoint of this server.
type form struct {
	url.Values
	body []byte // as it arrived
}

// readForm reads the body of a request (RFC 6749, section 3.2: no parameter
// twice, and one without a value counts as left out).
func readForm(w http.ResponseWriter, r *http.Request) (*form, error) {
	const rule = "RFC 6749 3.2"
	if r.URL.RawQuery != "" {
		return nil, refuse(errInvalidRequest, rule, "parameters in the URL")
	}
	if !serve.IsMediaType(r, "application/x-www-form-urlencoded") {
		return nil, refuse(errInvalidRequest, rule, "body is not application/x-www-form-urlencoded")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFormSize))
	if err != nil {
		return nil, refuse(errInvalidRequest, rule, "body: %v", err)
	}
	parsed, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, refuse(errInvalidRequest, rule, "body: %v", err)
	}
	form := &form{make(url.Values), body}
	for name, values := range parsed {
		switch {
		case len(values) > 1 && name == "resource": // the one that may be (RFC 8707, section 2)
			return nil, refuse(errInvalidTarget, "RFC 8707 2", "more than one resource for one token")
		case len(values) > 1:
			return nil, refuse(errInvalidRequest, rule, "parameter %.40q is given %d times", name, len(values))
		case values[0] != "":
			form.Values[name] = values
		}
	}
	return form, nil
}

// grantClientCredentials: RFC 6749, section 4.4.
func (s *Server) grantClientCredentials(instance *clientInstance, form *form) (*tokenResponse, error) {
	if err := instance.checkReqHash(form.body); err != nil {
		return nil, err
	}
	granted, err := s.newGrant(instance.client, form)
	if err != nil {
		return nil, err
	}
	return s.firstResponse(instance, granted)
}

// grantRefresh: RFC 6749, section 6. Refresh tokens rotate: each is good for one
// request that succeeds.
func (s *Server) grantRefresh(instance *clientInstance, form *form) (*tokenResponse, error) {
	if err := instance.checkReqHash(form.body); err != nil {
		return nil, err
	}
	old := form.Get("refresh_token")
	if old == "" {
		return nil, refuse(errInvalidRequest, "RFC 6749 6", "no refresh_token")
	}
	granted, err := s.refresh.find(old, instance.binding())
	if err != nil {
		return nil, err
	}
	asked, err := s.narrowGrant(granted, form)
	if err != nil {
		return nil, err
	}
	response, err := s.newResponse(instance, asked)
	if err != nil {
		return nil, err
	}
	// The new refresh token keeps the scope that was granted, whatever part of
	// it this access token has.
	response.RefreshToken, err = s.refresh.rotate(old)
	return response, err
}

// newGrant returns what a request asks for: of the scope values that the client
// may have those that it names, or all; and a resource (RFC 8707), if it names
// one. A server without a resource does not know the parameter.
func (s *Server) newGrant(client Client, form *form) (*grant, error) {
	scope, err := narrowScope(form.Get("scope"), client.Scopes)
	if err != nil {
		return nil, err
	}
	granted := &grant{scope: scope}
	if s.resource != nil {
		granted.resource = form.Get("resource")
		if granted.resource != "" && granted.resource != s.resource.audience {
			return nil, refuse(errInvalidTarget, "RFC 8707 2", "resource %.200q is not known", granted.resource)
		}
	}
	return granted, nil
}

// narrowGrant returns what a request asks for of what was granted before.
func (s *Server) narrowGrant(granted *grant, form *form) (*grant, error) {
	scope, err := narrowScope(form.Get("scope"), granted.scope)
	if err != nil {
		return nil, err
	}
	if asked := form.Get("resource"); s.resource != nil && asked != "" && asked != granted.resource {
		return nil, refuse(errInvalidTarget, "RFC 8707 2.2", "resource %.200q was not granted", asked)
	}
	return &grant{scope, granted.resource}, nil
}

func narrowScope(requested string, allowed []string) ([]string, error) {
	if requested == "" {
		return allowed, nil
	}
	scope := strings.Fields(requested)
	for _, value := range scope {
		if !slices.Contains(allowed, value) {
			return nil, refuse(errInvalidScope, "RFC 6749 3.3", "scope %.80q is not allowed for the client", value)
		}
	}
	return scope, nil
}

// firstResponse is newResponse for a new grant: with a refresh token, if the
// server issues them.
func (s *Server) firstResponse(instance *clientInstance, granted *grant) (*tokenResponse, error) {
	response, err := s.newResponse(instance, granted)
	if err == nil && s.cfg.RefreshTokens {
		response.RefreshToken = s.refresh.issue(instance.binding(), granted)
	}
	return response, err
}

// newResponse makes an access token (RFC 9068), bound to the DPoP key if there
// is one (RFC 9449, section 5).
func (s *Server) newResponse(instance *clientInstance, granted *grant) (*tokenResponse, error) {
	response := &tokenResponse{
		TokenType: "Bearer",
		ExpiresIn: int64(s.cfg.TokenLifetime.Seconds()),
		Scope:     strings.Join(granted.scope, " "),
	}
	if instance.dpopThumbprint != "" {
		response.TokenType = "DPoP"
	}
	var err error
	response.AccessToken, err = s.signAccessToken(instance, granted, response.Scope)
	return response, err
}
