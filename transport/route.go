// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/instancekey/instancekey/internal/endpoint"
)

// ErrRedirect: the Transport refuses a request that a redirect has made, if the request
// before it was authenticated or this one would be. By redirecting an authenticated
// request, a server would send credentials and the request's body (a refresh token, for
// example) to a place that is not in the metadata. By redirecting to the issuer, a
// foreign server would get a request of its own authenticated.
var ErrRedirect = errors.New("transport: redirect from or to an authenticated endpoint refused")

// route is what a request is, by the table.
type route struct {
	*audience
	dpop  *signer // makes the request's DPoP proof; nil: it has none of ours
	token string  // at a resource: the access token, "" if there is none
}

// route returns what req is, nil if it is for nobody in the table. An authorization
// server's endpoint may be below a resource's identifier, and one resource below
// another: the more exact wins.
func (t *Transport) route(by *table, req *http.Request) *route {
	location, ok := locate(req)
	if !ok {
		return nil
	}
	if a := by.endpoints[location]; a != nil && req.Method == http.MethodPost {
		return &route{audience: a, dpop: t.serverKey(a, location)}
	}
	for _, a := range by.resources {
		if endpoint.Below(req.URL, a.prefix) {
			scheme, token := accessToken(req)
			return &route{a, t.resourceKey(a, scheme), token}
		}
	}
	return nil
}

// locate returns the endpoint.Location that req goes to, if that can be told.
func locate(req *http.Request) (location string, ok bool) {
	switch {
	case req.URL == nil || req.URL.Opaque != "":
		// net/http sends Opaque in place of the path that is compared here.
		return "", false
	case req.Host != "" && req.Host != req.URL.Host:
		// The connection goes to URL.Host, but what answers there by another
		// virtual host is not what the metadata named.
		return "", false
	case endpoint.HasDotSegment(req.URL.EscapedPath()):
		// Servers and proxies resolve it, and it may lead elsewhere.
		return "", false
	}
	return endpoint.Location(req.URL), true
}

// serverKey returns the key of the DPoP proof for a request to a server's endpoint.
func (t *Transport) serverKey(a *audience, location string) *signer {
	switch {
	case a.method == MethodDPoP:
		return t.instance
	case a.bound[location]:
		return t.dpop
	default:
		return nil
	}
}

// resourceKey returns the key of the DPoP proof for a request to a resource. Such a
// proof goes with a token that is bound to its key, and proves possession in combined
// mode.
func (t *Transport) resourceKey(a *audience, scheme string) *signer {
	switch {
	case a.method == MethodDPoP && !a.unattested:
		return t.instance
	case strings.EqualFold(scheme, "DPoP"):
		return a.tokens
	default:
		return nil
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

// Audience returns the identifier of the server or resource that a request with this
// method, URL and Host is for: an issuer or a resource identifier. It returns "" if
// RoundTrip does not authenticate such a request now.
func (t *Transport) Audience(req *http.Request) (identifier string, isResource bool) {
	if to := t.route(t.table.Load(), req); to != nil {
		return to.identifier, to.isResource
	}
	return "", false
}

var errMoved = errors.New("it was an endpoint until the server's metadata changed, and is none any more: ask for the server's endpoints again")

// checkMoved refuses a POST to what was an endpoint.
func (t *Transport) checkMoved(by *table, req *http.Request) error {
	if len(by.former) == 0 || req.Method != http.MethodPost {
		return nil
	}
	location, ok := locate(req)
	issuer := by.former[location]
	if !ok || issuer == "" {
		return nil
	}
	return &Error{Audience: issuer, Thumbprint: t.thumbprint, Step: StepMetadata, Err: fmt.Errorf("%s: %w", location, errMoved)}
}

// isRedirected reports whether req is what a redirect has made of an authenticated
// request. Such a request is never sent, so one step back is enough.
func (t *Transport) isRedirected(by *table, req *http.Request) bool {
	before := req.Response.Request
	return before != nil && (outcomeOf(req.Response).request == before || t.route(by, before) != nil || t.checkMoved(by, before) != nil)
}

// sharesOrigin reports whether u is on the origin of a server's issuer or of a
// resource.
func (t *table) sharesOrigin(u *url.URL) bool {
	if u == nil {
		return false
	}
	origin := endpoint.Origin(u)
	for a := range t.audiences() {
		if a.origin == origin {
			return true
		}
	}
	return false
}
