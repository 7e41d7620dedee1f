// SPDX-License-Identifier: Apache-2.0

package transporttest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/transport"
	. "github.com/instancekey/instancekey/transport/transporttest"
)

// A client makes requests by hand, so that each part can be wrong.
type client struct {
	t      testing.TB
	server *Server
	key    *ecdsa.PrivateKey
	http   *http.Client
	serial int
}

func newClient(t testing.TB, cfg Config) *client {
	base := new(http.Transport)
	t.Cleanup(base.CloseIdleConnections)
	return &client{t: t, server: New(t, cfg), key: newKey(), http: &http.Client{
		Transport:     base,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// parts is what a request is made of.
type parts struct {
	method      string
	endpoint    string
	attestation []string
	pop         []string
	dpop        []string
	body        string
}

// A forger describes a JWT; edits change it before it is signed.
type forger struct {
	typ    string
	key    any
	alg    jose.SignatureAlgorithm
	header map[jose.HeaderKey]any
	embed  bool
	claims map[string]any
}

func (c *client) sign(f forger) string {
	c.t.Helper()
	options := (&jose.SignerOptions{ExtraHeaders: f.header, EmbedJWK: f.embed}).WithType(jose.ContentType(f.typ))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: f.alg, Key: f.key}, options)
	if err != nil {
		c.t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(f.claims).Serialize()
	if err != nil {
		c.t.Fatal(err)
	}
	return token
}

// pop makes a PoP JWT.
func (c *client) pop(challenge string, edits ...func(*forger)) string {
	c.serial++
	f := forger{typ: "oauth-client-attestation-pop+jwt", key: c.key, alg: jose.ES256, claims: map[string]any{
		"aud": c.server.Issuer, "jti": fmt.Sprint("id", c.serial), "iat": time.Now().Unix(), "challenge": challenge,
	}}
	for _, edit := range edits {
		edit(&f)
	}
	return c.sign(f)
}

// proof makes a DPoP proof for the token endpoint.
func (c *client) proof(edits ...func(*forger)) string {
	c.serial++
	f := forger{typ: "dpop+jwt", key: c.key, alg: jose.ES256, embed: true, claims: map[string]any{
		"htm": "POST", "htu": c.server.Endpoint(Token), "jti": fmt.Sprint("id", c.serial), "iat": time.Now().Unix(),
	}}
	for _, edit := range edits {
		edit(&f)
	}
	return c.sign(f)
}

func (c *client) challenge() string {
	c.t.Helper()
	resp := c.do(parts{endpoint: Challenge})
	var answer struct {
		Challenge string `json:"attestation_challenge"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != 200 || answer.Challenge == "" {
		c.t.Fatalf("challenge endpoint: %d, %v", resp.StatusCode, err)
	}
	return answer.Challenge
}

func (c *client) do(p parts) *http.Response {
	c.t.Helper()
	if p.method == "" {
		p.method = http.MethodPost
	}
	if p.endpoint == "" {
		p.endpoint = Token
	}
	req, err := http.NewRequestWithContext(c.t.Context(), p.method, c.server.Endpoint(p.endpoint), strings.NewReader(p.body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header[transport.HeaderAttestation] = p.attestation
	req.Header[transport.HeaderAttestationPoP] = p.pop
	req.Header[transport.HeaderDPoP] = p.dpop
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// code returns the error code of a response, "" if it is a success.
func (c *client) code(resp *http.Response) string {
	c.t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	var answer struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		c.t.Fatalf("%d %q: %v", resp.StatusCode, body, err)
	}
	return answer.Error
}

func claim(name string, value any) func(*forger) {
	return func(f *forger) {
		if f.claims[name] = value; value == nil {
			delete(f.claims, name)
		}
	}
}
