// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"io"
	"net/http"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/transport"
)

// ResourceTokens gets access tokens for the requests of ResourceClientWith. It is safe
// for concurrent use if its client is used so.
type ResourceTokens interface {
	// Token returns an access token for the resource of this identifier. It must return
	// soon after ctx ends, which is the request's context.
	Token(ctx context.Context, resource string) (*oauth2.Token, error)

	// Refused is called when a resource has answered 401 to a request with this token.
	// After that Token returns another token, if there is one.
	Refused(token *oauth2.Token)
}

// ResourceClient returns an HTTP client for Config.Resources. It does what HTTPClient
// does, and puts an access token on each request for a resource: that of TokenFor with
// these scopes. If the resource answers 401, the client drops the token and sends the
// request once more with another token. It can do so only if the request's body can be
// repeated; http.NewRequest sees to that for the usual body types. The caller gets a 401
// to the second request, or to a request that cannot be repeated.
//
// The client puts no token on a request that has an Authorization field, and none on a
// request for another place.
func (c *Client) ResourceClient(scopes ...string) *http.Client {
	return c.ResourceClientWith(grantedTokens{c, scopes})
}

// ResourceClientWith is ResourceClient with tokens of another grant, for example of a
// refresh token that the program keeps.
func (c *Client) ResourceClientWith(tokens ResourceTokens) *http.Client {
	return &http.Client{Transport: authorizer{roundTripper{c}, tokens}}
}

// grantedTokens are those of the client credentials grant.
type grantedTokens struct {
	client *Client
	scopes []string
}

func (t grantedTokens) Token(ctx context.Context, resource string) (*oauth2.Token, error) {
	return t.client.TokenFor(ctx, resource, t.scopes...)
}

func (t grantedTokens) Refused(token *oauth2.Token) { t.client.Forget(token) }

// authorizer puts access tokens on requests for resources.
type authorizer struct {
	roundTripper
	tokens ResourceTokens
}

func (a authorizer) RoundTrip(req *http.Request) (*http.Response, error) {
	resource, isResource := a.client.transport.Audience(req)
	_, isAuthorized := req.Header["Authorization"]
	if !isResource || isAuthorized || req.Response != nil { // a redirect is refused, and needs no token
		return a.roundTripper.RoundTrip(req)
	}
	token, err := a.tokens.Token(req.Context(), resource)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := a.send(req, req.Body, token)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || !aboutToken(resp) {
		return resp, err
	}
	a.tokens.Refused(token)
	body, ok := bodyAgain(req)
	if !ok {
		return resp, nil
	}
	next, err := a.tokens.Token(req.Context(), resource)
	if err != nil || next.AccessToken == token.AccessToken {
		if body != nil {
			body.Close()
		}
		if err != nil {
			drain(resp)
			return nil, err
		}
		return resp, nil
	}
	drain(resp)
	return a.send(req, body, next)
}

// send sends a copy of req with that body and token.
func (a authorizer) send(req *http.Request, body io.ReadCloser, token *oauth2.Token) (*http.Response, error) {
	authorized := req.WithContext(req.Context())
	authorized.Body = body
	if authorized.Header = req.Header.Clone(); authorized.Header == nil {
		authorized.Header = make(http.Header)
	}
	token.SetAuthHeader(authorized)
	defer authorized.Header.Del("Authorization") // the response names this request, as the caller's
	return a.roundTripper.RoundTrip(authorized)
}

// aboutToken reports whether a 401 may be because of the access token, and not because
// of a proof that went beside it.
func aboutToken(resp *http.Response) bool {
	switch code, _ := transport.Refused(resp); code {
	case "use_attestation_challenge", "use_fresh_attestation", badAttestation, "use_dpop_nonce", "invalid_dpop_proof":
		return false
	}
	return true
}

// bodyAgain returns req's body from its beginning, nil if it has none; ok is false if it
// cannot be had.
func bodyAgain(req *http.Request) (body io.ReadCloser, ok bool) {
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return req.Body, true
	case req.GetBody == nil:
		return nil, false
	}
	body, err := req.GetBody()
	return body, err == nil
}

// drain gives a response up so that its connection can be used again.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, maxDrained)
	resp.Body.Close()
}

// maxDrained bounds what is read of a response for nothing but its connection.
const maxDrained = 64 << 10
