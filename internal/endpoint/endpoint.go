// SPDX-License-Identifier: Apache-2.0

// Package endpoint decides which URLs credentials may be sent to at all.
package endpoint

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
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
	case !isPort(u.Port()):
		return nil, fmt.Errorf("has %.20q for a port", u.Port())
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
// does, and without a query (RFC 8414, section 2). A path with "." or ".." in it is
// that of another place for some.
func ParseIdentifier(raw string) (*url.URL, error) {
	u, err := Parse(raw)
	switch {
	case err != nil:
		return nil, err
	case u.RawQuery != "" || u.ForceQuery:
		return nil, errors.New("has a query")
	case HasDotSegment(u.EscapedPath()):
		return nil, errors.New("has a segment . or .. in its path")
	}
	return u, nil
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
func Origin(u *url.URL) string { return originWith(u, "") }

// originWith returns the origin with something behind it.
func originWith(u *url.URL, path string) string {
	scheme, host, port := lower(u.Scheme), lower(u.Hostname()), u.Port()
	if port == "" {
		switch scheme {
		case "https":
			port = "443"
		case "http":
			port = "80"
		}
	}
	if strings.Contains(host, ":") { // an IPv6 address
		return scheme + "://[" + host + "]:" + port + path
	}
	return scheme + "://" + host + ":" + port + path
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

// isPort reports whether text is a port's number, or empty.
func isPort(text string) bool {
	number, err := strconv.ParseUint(text, 10, 16)
	return text == "" || err == nil && number > 0
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
	return originWith(u, path)
}

// Below reports whether the path of u is that of base or below it, on the same
// origin, for all who may read it on its way. A path that a proxy, a framework or a
// file system may take for one outside is not below: it is for nobody that
// credentials are meant for.
func Below(u, base *url.URL) bool {
	location, prefix := Location(u), Location(base)
	below, ok := strings.CutPrefix(location, prefix)
	if !ok || below != "" && below[0] != '/' && !strings.HasSuffix(prefix, "/") {
		return false
	}
	return !HasDotSegment(u.EscapedPath())
}

// maxDecodings bounds how often a path is decoded: each reader on its way may do it
// once.
const maxDecodings = 3

// HasDotSegment reports whether a path, as it is on the wire, has a segment "." or
// ".." for one of those who may read it. Some decode it, and some of them twice;
// some take a backslash for a slash; some cut off a segment's parameters, which begin
// with a semicolon, before they resolve it ("..;" is ".." for them); and some end
// segments with spaces, dots, or a control character that others leave out.
func HasDotSegment(path string) bool {
	for range maxDecodings {
		if hasDotSegment(path) {
			return true
		}
		decoded, err := url.PathUnescape(path)
		if err != nil || decoded == path {
			return false
		}
		path = decoded
	}
	return hasDotSegment(path) || strings.Contains(path, "%") // nobody writes so
}

func hasDotSegment(path string) bool {
	isSeparator := func(r rune) bool { return r == '/' || r == '\\' }
	for segment := range strings.FieldsFuncSeq(path, isSeparator) {
		segment, _, _ = strings.Cut(segment, ";")
		// Without what some leave out, only dots are left of it.
		dots := strings.Map(func(r rune) rune {
			if r <= ' ' || r == 0x7f {
				return -1
			}
			return r
		}, segment)
		if dots != "" && strings.Trim(dots, ".") == "" && len(dots) <= 2 {
			return true
		}
	}
	return false
}
