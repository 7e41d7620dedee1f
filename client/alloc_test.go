// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
)

// The first version made 290 allocations for a token and 219 for a form POST, counted in
// the same way.
const (
	maxTokenAllocations = 234
	maxFormAllocations  = 149
)

// stub is a base transport that answers at once, with a token.
type stub struct{}

func (stub) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		req.Body.Close()
	}
	return &http.Response{
		StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}, transport.HeaderChallenge: {"a-challenge"}}, Request: req,
		Body: io.NopCloser(strings.NewReader(`{"access_token":"an-access-token","token_type":"Bearer","expires_in":300}`)),
	}, nil
}

func stubbed(t testing.TB) *client.Client {
	c, err := client.New(t.Context(), client.Config{
		Issuer: issuerURL, ClientID: "client", Key: newKey(t, "ES256"), Attester: &testAttester{attest: selfAttest(t)}, Base: stub{},
		Metadata: &client.Metadata{Issuer: issuerURL, TokenEndpoint: issuerURL + "/token"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// newToken gets a token that is not kept.
func newToken(t testing.TB, c *client.Client) {
	token, err := c.Token(t.Context(), "scope")
	if err != nil {
		t.Fatal(err)
	}
	c.Forget(token)
}

func postStub(t testing.TB, c *http.Client) {
	resp, err := c.Post(issuerURL+"/token", "application/x-www-form-urlencoded", strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	c := stubbed(t)
	h := c.HTTPClient()
	for name, test := range map[string]struct {
		do   func()
		most float64
	}{
		"token":     {func() { newToken(t, c) }, maxTokenAllocations},
		"form POST": {func() { postStub(t, h) }, maxFormAllocations},
	} {
		if n := testing.AllocsPerRun(200, test.do); n > test.most {
			t.Errorf("%s: %v allocations, want %v at the most", name, n, test.most)
		} else {
			t.Logf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkToken(b *testing.B) {
	c := stubbed(b)
	b.ReportAllocs()
	for b.Loop() {
		newToken(b, c)
	}
}

func BenchmarkFormPOST(b *testing.B) {
	c := stubbed(b).HTTPClient()
	b.ReportAllocs()
	for b.Loop() {
		postStub(b, c)
	}
}
