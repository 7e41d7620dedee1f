// SPDX-License-Identifier: Apache-2.0

package clienttest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/instancekey/instancekey/transport/transporttest"
)

// Endpoints of the authorization server beside those of package transporttest, for its
// Server.Count.
const (
	Authorization       = "authorization"
	DeviceAuthorization = "device_authorization"

	verification = "verification" // where the user of a device authorizes it
)

const (
	grantDevice = "urn:ietf:params:oauth:grant-type:device_code"

	grantLifetime = 10 * time.Minute // of codes and pushed requests
)

// grants is what the authorization server has granted. A request comes here when package
// transporttest has found its client authentication good.
type grants struct {
	clientID        string
	verificationURL string
	lifetime        time.Duration
	now             func() time.Time

	mu            sync.Mutex
	denied        bool
	pushed        map[string]pushedRequest // by request_uri
	codes         map[string]code          // authorization codes
	devices       map[string]*deviceCode   // by device_code
	accessTokens  map[string]Token
	refreshTokens map[string]refreshToken
}

// A Token is an access token that the authorization server has issued.
type Token struct {
	Scope          string
	Resources      []string // the "resource" parameters that it was asked for with
	KeyThumbprint  string   // of the Client Instance Key that asked for it
	DPoPThumbprint string   // of the key that it is bound to; "" for a bearer token
	Expiry         time.Time
}

// refreshToken is bound to the Client Instance Key (draft, "Refresh Tokens").
type refreshToken struct {
	scope         string
	resources     []string
	keyThumbprint string
}

func newGrants(cfg Config) *grants {
	return &grants{
		lifetime:      cfg.TokenLifetime,
		now:           cfg.Clock,
		pushed:        make(map[string]pushedRequest),
		codes:         make(map[string]code),
		devices:       make(map[string]*deviceCode),
		accessTokens:  make(map[string]Token),
		refreshTokens: make(map[string]refreshToken),
	}
}

// answer is transporttest.Policy.Answer.
func (g *grants) answer(r transporttest.Request) (status int, answer map[string]any) {
	form, err := url.ParseQuery(string(r.Body))
	if err != nil {
		return http.StatusBadRequest, refusal("invalid_request", "the body is no form")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch r.Endpoint {
	case transporttest.PAR:
		return g.push(r, form)
	case DeviceAuthorization:
		return g.authorizeDevice(r, form)
	case transporttest.Introspection:
		return http.StatusOK, g.introspect(form.Get("token"))
	case transporttest.Revocation:
		delete(g.accessTokens, form.Get("token"))
		delete(g.refreshTokens, form.Get("token"))
		return http.StatusOK, map[string]any{}
	}
	answer = g.token(r, form)
	if answer["error"] != nil {
		return http.StatusBadRequest, answer
	}
	return http.StatusOK, answer
}

// token answers a token request. g.mu is held.
func (g *grants) token(r transporttest.Request, form url.Values) map[string]any {
	switch form.Get("grant_type") {
	case "client_credentials":
		return g.issue(r, form.Get("scope"), form["resource"], false)
	case "authorization_code":
		return g.redeem(r, form)
	case grantDevice:
		return g.poll(r, form)
	case "refresh_token":
		return g.refresh(r, form)
	}
	return refusal("unsupported_grant_type", "this server has no grant of that type")
}

// issue makes an access token, and a refresh token where the grant has one. g.mu is held.
func (g *grants) issue(r transporttest.Request, scope string, resources []string, refreshable bool) map[string]any {
	access, tokenType := rand.Text(), "Bearer"
	if r.DPoPThumbprint != "" {
		tokenType = "DPoP"
	}
	g.accessTokens[access] = Token{scope, slices.Clone(resources), r.KeyThumbprint, r.DPoPThumbprint, g.now().Add(g.lifetime)}
	answer := map[string]any{"access_token": access, "token_type": tokenType, "expires_in": int(g.lifetime / time.Second)}
	if scope != "" {
		answer["scope"] = scope
	}
	if refreshable {
		refresh := rand.Text()
		g.refreshTokens[refresh] = refreshToken{scope, slices.Clone(resources), r.KeyThumbprint}
		answer["refresh_token"] = refresh
	}
	return answer
}

// refresh replaces a refresh token, which only the key that it was issued to can use.
// g.mu is held.
func (g *grants) refresh(r transporttest.Request, form url.Values) map[string]any {
	old, ok := g.refreshTokens[form.Get("refresh_token")]
	if !ok || old.keyThumbprint != r.KeyThumbprint {
		return refusal("invalid_grant", "the refresh token is unknown, was used, or is another key's")
	}
	delete(g.refreshTokens, form.Get("refresh_token"))
	return g.issue(r, old.scope, old.resources, true)
}

func (g *grants) introspect(token string) map[string]any {
	known, ok := g.accessTokens[token]
	if !ok || !g.now().Before(known.Expiry) {
		return map[string]any{"active": false}
	}
	return map[string]any{"active": true, "scope": known.Scope, "client_id": g.clientID, "exp": known.Expiry.Unix()}
}

// find returns what is known of an access token that is good.
func (g *grants) find(access string) (Token, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	token, ok := g.accessTokens[access]
	return token, ok && g.now().Before(token.Expiry)
}

// digest is the code_challenge of a code_verifier (RFC 7636, section 4.2).
func digest(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
