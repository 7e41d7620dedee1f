// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"crypto/subtle"
	"net/http"
	"net/url"
)

// serveAuthorization is the authorization endpoint (RFC 6749, section 3.1). It
// takes pushed requests only. There is no user to ask: what was pushed is
// granted, and the code goes to the redirect URI at once.
func (s *Server) serveAuthorization(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	query := r.URL.Query()
	pushed, err := s.takeRequest(query.Get("client_id"), query.Get("request_uri"))
	if err != nil {
		// Not to a redirect URI: none is known.
		s.writeRefusal(r.Context(), w, "authorization request", err)
		return
	}
	to, err := url.Parse(pushed.redirectURI)
	if err != nil {
		s.writeRefusal(r.Context(), w, "authorization request", err)
		return
	}
	answer := to.Query()
	answer.Set("code", s.codes.add(pushed))
	answer.Set("iss", s.cfg.Issuer) // RFC 9207
	if pushed.state != "" {
		answer.Set("state", pushed.state)
	}
	to.RawQuery = answer.Encode()
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusSeeOther)
}

// grantCode: RFC 6749, section 4.1.3. A code is good for the Client Instance
// that pushed the request (section 10.4), for one attempt.
func (s *Server) grantCode(instance *clientInstance, form *form) (*tokenResponse, error) {
	const rule = "RFC 6749 4.1.3"
	code := form.Get("code")
	if code == "" {
		return nil, refuse(errInvalidRequest, rule, "no code")
	}
	pushed, err := s.codes.get(code)
	if err != nil {
		return nil, refuse(errInvalidGrant, rule, "code: %v", err)
	}
	if err := pushed.holder.check(instance.binding(), "code", rule, "10.4"); err != nil {
		return nil, err
	}
	if _, err := s.codes.take(code); err != nil {
		return nil, refuse(errInvalidGrant, rule, "code: %v", err)
	}
	verifier := base64Hash(form.Get("code_verifier"))
	switch {
	case form.Get("redirect_uri") != pushed.redirectURI:
		return nil, refuse(errInvalidGrant, rule, "redirect_uri is not that of the pushed request")
	case subtle.ConstantTimeCompare([]byte(verifier), []byte(pushed.codeChallenge)) != 1:
		return nil, refuse(errInvalidGrant, "RFC 7636 4.6", "code_verifier does not fit")
	case pushed.dpopThumbprint != "" && pushed.dpopThumbprint != instance.dpopThumbprint:
		return nil, refuse(errInvalidGrant, "RFC 9449 10", "code is bound to another DPoP key")
	}
	if err := s.checkPushed(instance, pushed, form); err != nil {
		return nil, err
	}
	granted, err := s.narrowGrant(pushed.granted, form)
	if err != nil {
		return nil, err
	}
	return s.firstResponse(instance, granted)
}

// checkPushed checks what the token request says of the pushed one. Client
// authentication proves who sent that; that it arrived as it was sent, only a
// hash of it does.
func (s *Server) checkPushed(instance *clientInstance, pushed *pushedRequest, form *form) error {
	if !s.cfg.RequireReqHash {
		return instance.checkReqHash(pushed.body, form.body)
	}
	if instance.reqHash == nil {
		return refuse(errInvalidClientAttestation, ruleReqHash, "nothing vouches for the pushed request")
	}
	return instance.checkReqHash(pushed.body)
}
