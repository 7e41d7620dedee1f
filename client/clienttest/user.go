// SPDX-License-Identifier: Apache-2.0

package clienttest

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"time"

	"github.com/instancekey/instancekey/transport/transporttest"
)

// A pushedRequest is an authorization request that came by PAR (RFC 9126).
type pushedRequest struct {
	form          url.Values
	keyThumbprint string // of the client instance that pushed it
	expiry        time.Time
}

// A code is an authorization code with the request that it is for.
type code struct {
	request       url.Values
	keyThumbprint string // of the client instance that pushed the request; "" if none did
	expiry        time.Time
}

// A deviceCode is a device that waits for its user (RFC 8628).
type deviceCode struct {
	userCode      string
	form          url.Values
	keyThumbprint string
	answered      bool
	denied        bool
	expiry        time.Time
}

// checkRequest finds what is wrong with an authorization request, beside its redirect_uri.
func (g *grants) checkRequest(request url.Values) (errorCode, reason string) {
	switch {
	case request.Get("response_type") != "code":
		return "unsupported_response_type", "response_type is not code"
	case request.Get("code_challenge") == "" || request.Get("code_challenge_method") != "S256":
		return "invalid_request", "there is no code_challenge by S256 (RFC 7636)"
	}
	return "", ""
}

// push answers a pushed authorization request. g.mu is held.
func (g *grants) push(r transporttest.Request, form url.Values) (status int, answer map[string]any) {
	if code, reason := g.checkRequest(form); code != "" {
		return http.StatusBadRequest, refusal(code, reason)
	}
	if form.Get("redirect_uri") == "" || form.Get("request_uri") != "" {
		return http.StatusBadRequest, refusal("invalid_request", "redirect_uri is missing, or request_uri is there")
	}
	uri := "urn:ietf:params:oauth:request_uri:" + rand.Text()
	g.pushed[uri] = pushedRequest{form, r.KeyThumbprint, g.now().Add(grantLifetime)}
	return http.StatusCreated, map[string]any{"request_uri": uri, "expires_in": int(grantLifetime / time.Second)}
}

// authorize is the authorization endpoint, which the user's browser opens. It asks the
// user nothing: a test has said the answer beforehand.
func (g *grants) authorize(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	g.mu.Lock()
	defer g.mu.Unlock()
	request, key := query, ""
	if uri := query.Get("request_uri"); uri != "" {
		pushed, ok := g.pushed[uri]
		if !ok || !g.now().Before(pushed.expiry) {
			http.Error(w, "request_uri is unknown, was used, or has expired", http.StatusBadRequest)
			return
		}
		delete(g.pushed, uri)
		request, key = pushed.form, pushed.keyThumbprint
	}
	back, err := url.Parse(request.Get("redirect_uri"))
	if err != nil || back.Scheme == "" || query.Get("client_id") != g.clientID {
		http.Error(w, "redirect_uri or client_id is missing or wrong", http.StatusBadRequest)
		return
	}
	answer := back.Query()
	errorCode, reason := g.checkRequest(request)
	switch {
	case errorCode != "":
		answer.Set("error", errorCode)
		answer.Set("error_description", reason)
	case g.denied:
		answer.Set("error", "access_denied")
	default:
		made := rand.Text()
		g.codes[made] = code{request, key, g.now().Add(grantLifetime)}
		answer.Set("code", made)
	}
	if state := request.Get("state"); state != "" {
		answer.Set("state", state)
	}
	back.RawQuery = answer.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

// redeem answers the token request with an authorization code. g.mu is held.
func (g *grants) redeem(r transporttest.Request, form url.Values) map[string]any {
	known, ok := g.codes[form.Get("code")]
	delete(g.codes, form.Get("code"))
	request := known.request
	switch {
	case !ok || !g.now().Before(known.expiry):
		return refusal("invalid_grant", "the code is unknown, was used, or has expired")
	case form.Get("redirect_uri") != request.Get("redirect_uri"):
		return refusal("invalid_grant", "redirect_uri is not that of the authorization request")
	case digest(form.Get("code_verifier")) != request.Get("code_challenge"):
		return refusal("invalid_grant", "code_verifier does not fit the code_challenge")
	case known.keyThumbprint != "" && known.keyThumbprint != r.KeyThumbprint:
		return refusal("invalid_grant", "another client instance pushed the authorization request")
	case request.Get("dpop_jkt") != "" && request.Get("dpop_jkt") != r.DPoPThumbprint:
		return refusal("invalid_grant", "the DPoP proof is not by the key of dpop_jkt")
	}
	resources := form["resource"]
	if len(resources) == 0 {
		resources = request["resource"]
	}
	return g.issue(r, request.Get("scope"), resources, true)
}

// authorizeDevice answers a device authorization request. g.mu is held.
func (g *grants) authorizeDevice(r transporttest.Request, form url.Values) (status int, answer map[string]any) {
	made, userCode := rand.Text(), rand.Text()[:8]
	g.devices[made] = &deviceCode{userCode: userCode, form: form, keyThumbprint: r.KeyThumbprint, expiry: g.now().Add(grantLifetime)}
	return http.StatusOK, map[string]any{
		"device_code":               made,
		"user_code":                 userCode,
		"verification_uri":          g.verificationURL,
		"verification_uri_complete": g.verificationURL + "?user_code=" + userCode,
		"expires_in":                int(grantLifetime / time.Second),
		"interval":                  1,
	}
}

// verify is where the user of a device answers.
func (g *grants) verify(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, device := range g.devices {
		if device.userCode == r.URL.Query().Get("user_code") && g.now().Before(device.expiry) {
			device.answered, device.denied = true, g.denied
			return
		}
	}
	http.Error(w, "no device has this user_code", http.StatusNotFound)
}

// poll answers a device that asks for its token. g.mu is held.
func (g *grants) poll(r transporttest.Request, form url.Values) map[string]any {
	device, ok := g.devices[form.Get("device_code")]
	switch {
	case !ok || device.keyThumbprint != r.KeyThumbprint:
		return refusal("invalid_grant", "the device_code is unknown, was used, or is another key's")
	case !g.now().Before(device.expiry):
		return refusal("expired_token", "the device_code has expired")
	case !device.answered:
		return refusal("authorization_pending", "the user has not answered")
	}
	delete(g.devices, form.Get("device_code"))
	if device.denied {
		return refusal("access_denied", "the user said no")
	}
	return g.issue(r, device.form.Get("scope"), device.form["resource"], true)
}
