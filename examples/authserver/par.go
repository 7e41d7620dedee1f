// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/instancekey/instancekey/examples/internal/serve"
)

const (
	requestURIPrefix  = "urn:ietf:params:oauth:request_uri:"
	pushedLifetime    = time.Minute
	codeLifetime      = time.Minute
	maxPushedRequests = 10_000 // and codes
)

// A pushedRequest is an authorization request that a Client Instance has pushed.
// It is kept with its code until that is redeemed.
type pushedRequest struct {
	holder         binding // section 10.4
	dpopThumbprint string  // RFC 9449, section 10; "": any key may be used
	body           []byte  // as it arrived: what the token request can vouch for
	granted        *grant
	redirectURI    string
	state          string
	codeChallenge  string
}

// servePushed is the pushed authorization request endpoint (RFC 9126, section
// 2). The client authenticates as at the token endpoint.
func (s *Server) servePushed(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	s.verifier.offer(w)
	pushed, err := s.pushRequest(w, r)
	if err != nil {
		s.writeRefusal(r.Context(), w, "pushed request", err)
		return
	}
	s.cfg.Logger.LogAttrs(r.Context(), slog.LevelInfo, "request pushed",
		slog.String("client_id", pushed.holder.clientID), slog.String("instance_key", pushed.holder.thumbprint))
	serve.JSON(w, http.StatusCreated, map[string]any{
		"request_uri": requestURIPrefix + s.requests.add(pushed),
		"expires_in":  int64(pushedLifetime.Seconds()),
	})
}

func (s *Server) pushRequest(w http.ResponseWriter, r *http.Request) (*pushedRequest, error) {
	form, err := readForm(w, r)
	if err != nil {
		return nil, err
	}
	instance, err := s.authenticate(r, s.parEndpoint, form)
	if err != nil {
		return nil, err
	}
	if err := instance.checkReqHash(form.body); err != nil {
		return nil, err
	}
	pushed := &pushedRequest{
		holder:         instance.binding(),
		dpopThumbprint: instance.dpopThumbprint,
		body:           form.body,
		redirectURI:    form.Get("redirect_uri"),
		state:          form.Get("state"),
		codeChallenge:  form.Get("code_challenge"),
	}
	if jkt := form.Get("dpop_jkt"); jkt != "" {
		if pushed.dpopThumbprint != "" && pushed.dpopThumbprint != jkt {
			return nil, refuse(errInvalidDPoPProof, "RFC 9449 10.1", "dpop_jkt is not the key of the DPoP proof")
		}
		pushed.dpopThumbprint = jkt
	}
	if err := checkAuthorizationRequest(instance.client, form); err != nil {
		return nil, err
	}
	pushed.granted, err = s.newGrant(instance.client, form)
	return pushed, err
}

// checkAuthorizationRequest: RFC 6749, section 4.1.1, with PKCE (RFC 7636), as
// RFC 9700 asks for.
func checkAuthorizationRequest(client Client, form *form) error {
	const pkce = "RFC 7636 4.3"
	switch {
	case len(client.RedirectURIs) == 0:
		return refuse(errUnauthorizedClient, "RFC 6749 4.1", "client is not registered for codes")
	case form.Has("request_uri"):
		return refuse(errInvalidRequest, "RFC 9126 2.1", "request_uri in a pushed request")
	case form.Get("client_id") == "":
		return refuse(errInvalidRequest, "RFC 6749 4.1.1", "no client_id")
	case form.Get("response_type") != "code":
		return refuse(errUnsupportedResponseType, "RFC 6749 4.1.1", "response_type %.40q", form.Get("response_type"))
	case !slices.Contains(client.RedirectURIs, form.Get("redirect_uri")):
		return refuse(errInvalidRequest, "RFC 6749 4.1.1", "redirect_uri %.200q is not registered", form.Get("redirect_uri"))
	case form.Get("code_challenge_method") != "S256":
		return refuse(errInvalidRequest, pkce, "code_challenge_method is not S256")
	case len(form.Get("code_challenge")) != len(base64Hash("")):
		return refuse(errInvalidRequest, pkce, "code_challenge is none of S256")
	}
	return nil
}

// takeRequest finds a pushed request by its request_uri, which is good for one
// use (RFC 9126, section 4).
func (s *Server) takeRequest(clientID, requestURI string) (*pushedRequest, error) {
	handle, ok := strings.CutPrefix(requestURI, requestURIPrefix)
	if !ok {
		return nil, refuse(errInvalidRequest, "RFC 9126 4", "no request_uri of this server: requests must be pushed")
	}
	pushed, err := s.requests.get(handle)
	if err == nil && pushed.holder.clientID != clientID {
		return nil, refuse(errInvalidRequest, "RFC 9126 4", "request_uri of another client")
	}
	if err == nil {
		_, err = s.requests.take(handle)
	}
	if err != nil {
		return nil, refuse(errInvalidRequest, "RFC 9126 4", "request_uri: %v", err)
	}
	return pushed, nil
}
