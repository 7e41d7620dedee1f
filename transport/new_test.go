// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"strings"
	"testing"

	"github.com/instancekey/instancekey/transport"
)

// TestNewRefuses: what cannot work is said before anything is sent.
func TestNewRefuses(t *testing.T) {
	good := func() transport.Config {
		return transport.Config{
			Key:          newKey(),
			Attestations: sourceFunc(nil),
			Servers:      []transport.Server{{Issuer: "https://as.example", Endpoints: []string{"https://as.example/token"}}},
		}
	}
	if _, err := transport.New(good()); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*transport.Config)
		say    string // in the error
	}{
		{"no key", func(c *transport.Config) { c.Key = nil }, "no key"},
		{"no attestations", func(c *transport.Config) { c.Attestations = nil }, "no attestation source"},
		{"no endpoints", func(c *transport.Config) { c.Servers[0].Endpoints = nil }, "no endpoints"},
		{"no issuer", func(c *transport.Config) { c.Servers[0].Issuer = "" }, "issuer"},
		{"issuer http", func(c *transport.Config) { c.Servers[0].Issuer = "http://as.example" }, "https"},
		{"endpoint http", func(c *transport.Config) { c.Servers[0].Endpoints[0] = "http://as.example/token" }, "https"},
		{"endpoint relative", func(c *transport.Config) { c.Servers[0].Endpoints[0] = "/token" }, "endpoint"},
		{"endpoint with a password", func(c *transport.Config) { c.Servers[0].Endpoints[0] = "https://a:verysecret@as.example/token" }, "user information"},
		{"endpoint with a fragment", func(c *transport.Config) { c.Servers[0].Endpoints[0] = "https://as.example/token#x" }, "fragment"},
		{"endpoint file", func(c *transport.Config) { c.Servers[0].Endpoints[0] = "file:///etc/passwd" }, "endpoint"},
		{"challenge endpoint http", func(c *transport.Config) { c.Servers[0].ChallengeEndpoint = "http://as.example/c" }, "challenge endpoint"},
		{"unknown method", func(c *transport.Config) { c.Servers[0].Method = "private_key_jwt" }, "method"},
		{"unknown profile", func(c *transport.Config) { c.Servers[0].Profile = "draft-3" }, "profile"},
		{"profile without client_id", func(c *transport.Config) { c.Servers[0].Profile = transport.ProfileOpenID4VCI }, "client_id"},
		{"resource http", func(c *transport.Config) { c.Resources = []transport.Resource{{Identifier: "http://rs.example"}} }, "https"},
		{"BindBody in combined mode", func(c *transport.Config) { c.BindBody, c.Servers[0].Method = true, transport.MethodDPoP }, "BindBody"},
		{"DPoP key without algorithm", func(c *transport.Config) { c.DPoPKey = lyingKey{newKey(), "none"} }, "asymmetric"},
		{"DPoP endpoint that is none of the endpoints", func(c *transport.Config) {
			c.DPoPKey, c.Servers[0].DPoPEndpoints = newKey(), []string{"https://as.example/tokens"}
		}, "DPoP endpoint"},
		{"MAC key", func(c *transport.Config) { c.Key = lyingKey{newKey(), "HS256"} }, "asymmetric"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := good()
			test.change(&cfg)
			rt, err := transport.New(cfg)
			if err == nil || rt != nil {
				t.Fatal("no error")
			}
			if text := err.Error(); !strings.HasPrefix(text, "transport: ") || strings.Count(text, "transport: ") != 1 || !strings.Contains(text, test.say) || strings.Contains(text, "verysecret") {
				t.Errorf("error %q", text)
			}
		})
	}
}
