// SPDX-License-Identifier: Apache-2.0

package endpoint_test

import (
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/endpoint"
)

// TestBelow: what is below a resource for us is so for everybody on the way to it.
func TestBelow(t *testing.T) {
	const base = "https://rs.example/rs"
	tests := map[string]bool{
		"https://rs.example/rs":           true,
		"https://RS.example:443/rs/":      true,
		"https://rs.example/rs?x=/../":    true,
		"https://rs.example/rs/a/b":       true,
		"https://rs.example/rs//a":        true,
		"https://rs.example/rs/a;v=1/b":   true,
		"https://rs.example/rs/;a":        true,
		"https://rs.example/rs/a..b":      true,
		"https://rs.example/rs/..a":       true,
		"https://rs.example/rs/a..":       true,
		"https://rs.example/rs/...":       true,
		"https://rs.example/rs/.well":     true,
		"https://rs.example/rs/a%2Fb":     true,
		"https://rs.example/rs/a%20b":     true,
		"https://rs.example/rs/a%5Cb":     true,
		"https://rs.example/rs/100%25":    true,
		"https://rs.example/rs/v1.2/x":    true,
		"https://rs.example/rs/%E4%B8%AD": true,

		"https://rs.example/":                        false,
		"https://rs.example/rsx":                     false,
		"https://rs.example/rs;a":                    false,
		"https://rs.example/RS":                      false,
		"https://rs.example/%72s":                    false,
		"https://rs.example/rs%2Fa":                  false,
		"https://rs.example/x/../rs":                 false,
		"https://other.example/rs":                   false,
		"http://rs.example/rs":                       false,
		"https://rs.example:8443/rs":                 false,
		"https://rs.example/rs/..":                   false,
		"https://rs.example/rs/../admin":             false,
		"https://rs.example/rs/./a":                  false,
		"https://rs.example/rs/..;/admin":            false,
		"https://rs.example/rs/..;a=b/x":             false,
		"https://rs.example/rs/.;/..;/x":             false,
		"https://rs.example/rs/..;":                  false,
		"https://rs.example/rs/..%3B/x":              false,
		"https://rs.example/rs/..%3b%2Fx":            false,
		"https://rs.example/rs/%2e%2e/x":             false,
		"https://rs.example/rs/.%2E/x":               false,
		"https://rs.example/rs/%2e%2e;/x":            false,
		"https://rs.example/rs/%252e%252e/x":         false,
		"https://rs.example/rs/%25252e%25252e/x":     false,
		"https://rs.example/rs/%2525252e%2525252e/x": false,
		"https://rs.example/rs/..%2Fadmin":           false,
		"https://rs.example/rs/..%252Fx":             false,
		"https://rs.example/rs/a%2F..%2Fx":           false,
		"https://rs.example/rs/..%5Cadmin":           false,
		"https://rs.example/rs/a%5C..%5Cx":           false,
		"https://rs.example/rs/..%255Cx":             false,
		"https://rs.example/rs/..%5C;/x":             false,
		"https://rs.example/rs/..%00/x":              false,
		"https://rs.example/rs/..%0d%0a/x":           false,
		"https://rs.example/rs/.%09./x":              false,
		"https://rs.example/rs/..%20/x":              false,
		"https://rs.example/rs/%20../x":              false,
	}
	if len(tests) != 55 {
		t.Errorf("%d tests, want 55", len(tests))
	}
	for raw, want := range tests {
		for _, slash := range []string{"", "/"} { // at the end of the identifier
			u, err := url.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := url.Parse(base + slash)
			want := want && (slash == "" || strings.HasPrefix(u.EscapedPath(), "/rs/"))
			if got := endpoint.Below(u, b); got != want {
				t.Errorf("%s below %s: %t", raw, b, got)
			}
		}
	}
	// A backslash that a caller has put into a URL is sent as it is encoded.
	u := &url.URL{Scheme: "https", Host: "rs.example", Path: `/rs/..\admin`}
	if b, _ := url.Parse(base); endpoint.Below(u, b) {
		t.Errorf("%s is below %s", u, b)
	}
	for _, host := range []string{"https://rs.example", "https://rs.example/"} {
		b, _ := url.Parse(host)
		for raw, want := range map[string]bool{"https://rs.example": true, "https://rs.example/x": true, "https://rs.example/..;/x": false} {
			if u, _ := url.Parse(raw); endpoint.Below(u, b) != want {
				t.Errorf("%s below %s: %t", raw, host, !want)
			}
		}
	}
}

// FuzzBelow: however often somebody decodes the path of a URL that is below, takes
// backslashes for slashes and cuts parameters off, it does not lead out.
func FuzzBelow(f *testing.F) {
	for _, seed := range []string{"/rs/a", "/rs/..;/x", "/rs/%2e%2e/x", "/rs/%252e./x", `/rs/%5c..%5C`, "/rs/a;b/.%2e;c/%2E.", "/rs/%25252e%25252e"} {
		f.Add(seed)
	}
	base, _ := url.Parse("https://rs.example/rs")
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.Parse("https://rs.example" + raw)
		if err != nil || !endpoint.Below(u, base) {
			return
		}
		parameters := regexp.MustCompile(`;[^/]*`)
		read := u.EscapedPath()
		for range 5 {
			for _, slashes := range []string{read, strings.ReplaceAll(read, `\`, "/")} {
				for _, plain := range []string{slashes, parameters.ReplaceAllString(slashes, "")} {
					if got := path.Clean(plain); got != "/rs" && !strings.HasPrefix(got, "/rs/") {
						t.Fatalf("%q is %q for some", raw, got)
					}
				}
			}
			decoded, err := url.PathUnescape(read)
			if err != nil {
				return
			}
			read = decoded
		}
	})
}
