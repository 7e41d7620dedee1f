// SPDX-License-Identifier: Apache-2.0

package endpoint_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/endpoint"
)

func TestParse(t *testing.T) {
	tests := []struct {
		raw string
		err string // "": accepted
	}{
		{"https://as.example", ""},
		{"https://as.example/tenant?x=1", ""},
		{"HTTPS://AS.example:8443/", ""},
		{"https://[2001:db8::1]/", ""},
		{"https://xn--issuer-pyd.example/", ""},
		{"http://localhost:8080/token", ""},
		{"http://LOCALHOST/token", ""},
		{"http://127.0.0.1/token", ""},
		{"http://127.8.9.10:1/token", ""},
		{"http://[::1]:8080/token", ""},
		{"http://[::ffff:127.0.0.1]/token", ""},

		{"https://as.example:65535/", ""},
		{"https://as.example:/", ""},

		{"https://as.example:0/", "port"},
		{"https://as.example:65536/", "port"},
		{"https://as.example:99999999999999999999/", "port"},
		{"http://as.example", "use https"},
		{"http://localhost.evil.example", "use https"},
		{"http://127.0.0.1.evil.example", "use https"},
		{"http://128.0.0.1", "use https"},
		{"http://0.0.0.0", "use https"},
		{"http://[::]", "use https"},
		{"http://[::1%25lo]/", "use https"},
		{"http://127.1/", "use https"},
		{"http://2130706433/", "use https"},
		{"http://localhoſt/", "ASCII"},
		{"https://İssuer.example", "ASCII"},
		{"https://issuer．example", "ASCII"},
		{"https://user@as.example", "user information"},
		{"https://@as.example", "user information"},
		{"http://localhost@evil.example", "user information"},
		{"https://a:verysecret@as.example", "user information"},
		{"https://as.example/#", "fragment"},
		{"https://as.example/#x", "fragment"},
		{"https:as.example", "is not an absolute"},
		{"https:///path", "is not an absolute"},
		{"https://:443/", "is not an absolute"},
		{"//as.example", "scheme"},
		{"/path", "is not an absolute"},
		{"", "is not an absolute"},
		{"ftp://as.example", "scheme"},
		{"unix:///socket", "is not an absolute"},
		{"https://as.example:port/", "is not a URL"},
		{"https://as.example/%zz", "is not a URL"},
		{"https://as.example\n/", "is not a URL"},
		{"https://as example/", "is not a URL"},
		{"https://" + strings.Repeat("a", 100000) + "#", "fragment"},
	}
	for _, test := range tests {
		t.Run(test.raw[:min(len(test.raw), 50)], func(t *testing.T) {
			u, err := endpoint.Parse(test.raw)
			switch {
			case test.err == "" && (err != nil || u == nil):
				t.Errorf("refused: %v", err)
			case test.err != "" && err == nil:
				t.Errorf("accepted as %s", u)
			case test.err != "" && (!strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "verysecret") || len(err.Error()) > 150):
				t.Errorf("error %q, want one about %q", err, test.err)
			}
		})
	}
}

// TestLocation: which URLs are one place, and which are not.
func TestLocation(t *testing.T) {
	const token = "https://as.example:443/token"
	for raw, same := range map[string]bool{
		"https://as.example/token":              true,
		"https://AS.Example/token":              true,
		"HTTPS://as.example:443/token":          true,
		"https://as.example:/token":             true,
		"https://as.example/token?a=b":          true,
		"https://as.example/Token":              false,
		"https://as.example/token/":             false,
		"https://as.example//token":             false,
		"https://as.example/%74oken":            false,
		"https://as.example/x/../token":         false,
		"https://as.example/token%2F":           false,
		"https://as.example/token;a":            false,
		"https://as.example.:443/token":         false,
		"https://as.example:8443/token":         false,
		"https://as.example:80/token":           false,
		"http://as.example:443/token":           false,
		"https://as.example.evil.example/token": false,
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := endpoint.Location(u); (got == token) != same {
			t.Errorf("Location(%s) is %s, the same: want %v", raw, got, same)
		}
	}
	for _, pair := range [][2]string{{"https://as.example", "https://as.example/"}, {"http://localhost", "http://LOCALHOST:80/"}, {"https://[2001:DB8::1]/", "https://[2001:db8::1]:443"}} {
		a, _ := url.Parse(pair[0])
		b, _ := url.Parse(pair[1])
		if endpoint.Location(a) != endpoint.Location(b) {
			t.Errorf("%s and %s are %s and %s", pair[0], pair[1], endpoint.Location(a), endpoint.Location(b))
		}
	}
}

// TestOriginFoldsASCIIOnly: these have one form in strings.ToLower, or in
// strings.EqualFold, and net/http would dial two different hosts.
func TestOriginFoldsASCIIOnly(t *testing.T) {
	for other, host := range map[string]string{
		"İssuer.example":      "issuer.example",
		"\u212Aeys.example":   "keys.example",
		"iſsuer.example":      "issuer.example",
		"issuer\uFF0Eexample": "issuer.example",
	} {
		a, b := &url.URL{Scheme: "https", Host: other}, &url.URL{Scheme: "https", Host: host}
		if endpoint.Origin(a) == endpoint.Origin(b) {
			t.Errorf("%q and %q have one origin", other, host)
		}
	}
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r > 127 }) }

func TestParseIdentifier(t *testing.T) {
	good := []string{
		"https://as.example.com", "https://as.example.com/", "https://as.example.com:8443/tenant",
		"http://127.0.0.1:8080", "http://[::1]:8080/x", "http://localhost",
	}
	for _, identifier := range good {
		if _, err := endpoint.ParseIdentifier(identifier); err != nil {
			t.Errorf("%s: %v", identifier, err)
		}
	}
	bad := []string{
		"", "as.example.com", "https:///x", "https:as.example.com", "http://as.example.com", "http://10.0.0.1",
		"http://localhost.example.com", "ftp://127.0.0.1", "https://as.example.com?", "https://as.example.com#", "https://u@as.example.com", "https://a b",
		"https://as.example.com/a/..", "https://as.example.com/./a", "https://as.example.com/%2e%2e/a", "https://as.example.com/..;/a",
	}
	for _, identifier := range bad {
		if _, err := endpoint.ParseIdentifier(identifier); err == nil {
			t.Errorf("%s is accepted", identifier)
		}
	}
	if len(good) != 6 || len(bad) != 16 {
		t.Errorf("%d good and %d bad identifiers, want 6 and 16", len(good), len(bad))
	}
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "Localhost": true, "127.0.0.1": true, "127.255.255.254": true, "::1": true,
		"": false, "localhost.": false, "foo.localhost": false, "0.0.0.0": false, "::": false, "127.0.0.1.": false, "127.1": false, "10.0.0.1": false, "::2": false,
	} {
		if got := endpoint.IsLoopback(host); got != want {
			t.Errorf("IsLoopback(%q) is %v", host, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"https://as.example/token?x#", "http://localhost:8080", "http://127.0.0.1.evil.example", "https://a@b/", "https://İ/", "https://[::1%25lo]:1/%2F", "https://h:/..//",
		"HTTP://[::FFFF:7F00:1]", "https:opaque", "//x", "https://as.example/%C4%B0?\x00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := endpoint.Parse(raw)
		if err != nil {
			if u != nil || len(err.Error()) > 400 {
				t.Errorf("%v, error %q", u, err)
			}
			return
		}
		if u.Scheme != "https" && (u.Scheme != "http" || !endpoint.IsLoopback(u.Hostname())) {
			t.Errorf("accepted %s", u)
		}
		if u.User != nil || u.Fragment != "" || u.Host == "" || u.Hostname() == "" || !isASCII(u.Host) {
			t.Errorf("accepted %#v", u)
		}
		location := endpoint.Location(u)
		if !strings.HasPrefix(location, endpoint.Origin(u)+"/") {
			t.Errorf("location %q of origin %q", location, endpoint.Origin(u))
		}
		if strings.Contains(u.Host, "%") {
			return // an IPv6 zone: its location is for comparison, it cannot be parsed
		}
		again, err := endpoint.Parse(location)
		if err != nil {
			t.Fatalf("the location of %q, %q, is %v", raw, location, err)
		}
		if got := endpoint.Location(again); got != location {
			t.Errorf("the location of %q is %q, and of that %q", raw, location, got)
		}
	})
}
