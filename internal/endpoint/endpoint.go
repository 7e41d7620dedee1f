// Package endpoint decides which URLs credentials may be sent to at all.
package endpoint

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Parse parses an absolute URL that credentials may be sent to: https, or http
// to a loopback host, with a host, without user information and without a
// fragment. The error names what is wrong, not the URL, which may be long or
// hold a password.
func Parse(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("is not a URL")
	}
	switch {
	case u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("is not an absolute https URL")
	case !isASCII(u.Host):
		return nil, errors.New("has a host name that is not ASCII: write it in its xn-- form")
	case u.User != nil:
		return nil, errors.New("has user information")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, errors.New("has a fragment")
	case u.Scheme == "https":
		return u, nil
	case u.Scheme == "http" && IsLoopback(u.Hostname()):
		return u, nil
	case u.Scheme == "http":
		return nil, fmt.Errorf("is http and %.60q is not a loopback host: use https", u.Hostname())
	default:
		return nil, fmt.Errorf("has scheme %.20q: use https", u.Scheme)
	}
}

// ParseIdentifier parses a URL by which a server is known to others: as Parse
// does, and without a query (RFC 8414, section 2).
func ParseIdentifier(raw string) (*url.URL, error) {
	u, err := Parse(raw)
	if err == nil && (u.RawQuery != "" || u.ForceQuery) {
		return nil, errors.New("has a query")
	}
	return u, err
}

// IsLoopback reports whether a URL's host name means this machine: localhost,
// 127.0.0.0/8 or ::1.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Origin returns scheme, host and port in one comparable form: lower case, the
// port always written out (RFC 6454, section 4).
func Origin(u *url.URL) string {
	scheme, port := lower(u.Scheme), u.Port()
	if port == "" {
		switch scheme {
		case "https":
			port = "443"
		case "http":
			port = "80"
		}
	}
	return scheme + "://" + net.JoinHostPort(lower(u.Hostname()), port)
}

// lower folds ASCII only. strings.ToLower makes other letters into ASCII ones
// too (U+0130 into i, U+212A into k), and net/http would dial another host than
// the one that was compared.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 127 })
}

// Location returns origin and path in one comparable form. The path is compared
// as it is on the wire: /a%2Fb is not /a/b. The query is not part of it.
func Location(u *url.URL) string {
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return Origin(u) + path
}
