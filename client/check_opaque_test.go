// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// Certificates that crypto/x509 does not parse, made with openssl req -x509.
const (
	brainpoolCA    = "MIIBcjCCARmgAwIBAgIBBzAKBggqhkjOPQQDAjAXMRUwEwYDVQQDDAxCcmFpbnBvb2wgQ0EwIBcNMjYxMTI4MDAwMDU2WhgPMjEyNjExMDQwMDAwNTZaMBcxFTATBgNVBAMMDEJyYWlucG9vbCBDQTBaMBQGByqGSM49AgEGCSskAwMCCAEBBwNCAAQtoC07BzuKrmUVLEM6i15JDgJuPaZE7U7DH4sZvO6wrB4+WCmpveV4qYFbjuHQVSMuaBPoE9T7pTphhlrHgDXVo1MwUTAdBgNVHQ4EFgQUywPagxoN1rUmrgfV0kR2fJVG5CUwHwYDVR0jBBgwFoAUywPagxoN1rUmrgfV0kR2fJVG5CUwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAUbuLnLUSzIL6bHNIy/5iguhPOYwEh70Cb8M97/cVTpAIgepan7TuyhFmWvzDmMA4xixmLJISg8jrKHTGZHuLPJ18="
	negativeSerial = "MIIBdzCCAR6gAwIBAgIB+zAKBggqhkjOPQQDAjAaMRgwFgYDVQQDDA9uZWdhdGl2ZSBzZXJpYWwwIBcNMjYxMTI4MDAwMDU3WhgPMjEyNjExMDQwMDAwNTdaMBoxGDAWBgNVBAMMD25lZ2F0aXZlIHNlcmlhbDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJc5H7tUJ9D4j3ffPJyfO9kbDyC8ZZ1En1N2VC5guTRD5IfO8uMQbO6vPFFLCNu0tDLYkADsG8Ogle8XHaJcmdGjUzBRMB0GA1UdDgQWBBQllg+x7Npj9iO82vknwvNCOAjqVjAfBgNVHSMEGDAWgBQllg+x7Npj9iO82vknwvNCOAjqVjAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCIAYvGEVoeYVoUznfYQMlyE6x0HrPu+E58zapkCkP390eAiAYtXGi44xgnZU0byfI3ZzxPehPFWBBHZG2F53RSMJ8tw=="
)

const plainHeader = `{"alg":"ES256","typ":"oauth-client-attestation+jwt"}`

// withHeader has these members in its header, too.
func withHeader(members string) attestationTest {
	return altered(func(a string) string { return reheader(a, strings.TrimSuffix(plainHeader, "}")+","+members+"}") })
}

// withJWK has a cnf.jwk that is changed.
func withJWK(change func(jwk map[string]any)) attestationTest {
	return attestationTest{func(t testing.TB, key keystore.Key, now time.Time) string {
		encoded, err := jose.JSONWebKey{Key: key.Public()}.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var jwk map[string]any
		if err := json.Unmarshal(encoded, &jwk); err != nil {
			t.Fatal(err)
		}
		change(jwk)
		return forge(t, key, now, forgery{claims: map[string]any{"cnf": map[string]any{"jwk": jwk}}})
	}, nil}
}

// inClaims replaces in the JSON of the claims, where it comes first.
func inClaims(old, replacement string) attestationTest {
	return altered(func(a string) string {
		if !strings.Contains(payload(a), old) {
			panic(old + " is not in " + payload(a))
		}
		return repayload(a, strings.Replace(payload(a), old, replacement, 1))
	})
}

// tryAttestation gives a Client the attestation of a test. It returns that, and
// what a server received.
func tryAttestation(t *testing.T, test attestationTest) (raw string, arrived []string, err error) {
	t.Helper()
	key := newKey(t, "ES256")
	raw = test.make(t, key, testNow)
	network := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived = append(arrived, r.Header.Values(transport.HeaderAttestation)...)
		w.WriteHeader(http.StatusTeapot)
	})
	c, err := client.New(t.Context(), client.Config{
		Issuer: issuerURL, ClientID: "client", Key: key, Base: inProcess{network}, Clock: newTestClock().now,
		Attester: &testAttester{attest: func(context.Context, client.AttestRequest, int) (string, error) { return raw, nil }},
		Metadata: &client.Metadata{Issuer: issuerURL, TokenEndpoint: issuerURL + "/token", AttestationSigningAlgs: test.algs},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Token(t.Context())
	return raw, arrived, err
}

// TestAttestationIsOpaqueC9: what the client does not check it need not
// understand.
func TestAttestationIsOpaqueC9(t *testing.T) {
	tests := map[string]attestationTest{
		"x5c with a Brainpool CA":     withHeader(`"x5c":["` + brainpoolCA + `"]`),
		"x5c with a negative serial":  withHeader(`"x5c":["` + negativeSerial + `","` + brainpoolCA + `"]`),
		"x5c of no certificates":      withHeader(`"x5c":["AAAA",7,null]`),
		"x5c that is no list":         withHeader(`"x5c":"` + brainpoolCA + `"`),
		"x5c empty":                   withHeader(`"x5c":[]`),
		"x5t, x5u and jku":            withHeader(`"x5t":1,"x5t#S256":"!","x5u":"ftp://x","jku":["http://a"]`),
		"jwk of an unknown kind":      withHeader(`"jwk":{"kty":"EC","crv":"brainpoolP256r1","x":"AA","y":"AA"}`),
		"jwk that is private":         withHeader(`"jwk":{"kty":"oct","k":"AAAA"}`),
		"jwk that is text":            withHeader(`"jwk":"key"`),
		"kid that is a number":        withHeader(`"kid":7`),
		"cty, zip and nonce":          withHeader(`"cty":5,"zip":"DEF","nonce":[1]`),
		"crit":                        withHeader(`"crit":["http://example.com/x"],"http://example.com/x":true`),
		"crit that is malformed":      withHeader(`"crit":"exp"`),
		"status list and trust chain": withHeader(`"trust_chain":["a.b.c"],"status":{"status_list":{"idx":1,"uri":"https://s"}}`),
		"a member twice deep inside":  withHeader(`"x":{"a":1,"a":2}`),
		"space in the header": altered(func(a string) string {
			return reheader(a, " {\n\t\"typ\" : \"oauth-client-attestation+jwt\" , \"alg\":\"ES256\" } \r\n")
		}),
		"escapes in the header": altered(func(a string) string {
			return reheader(a, `{"\u0061lg":"ES\u003256","typ":"oauth\u002dclient-attestation+jwt"}`)
		}),
		"alg of a Brainpool curve":       altered(func(a string) string { return reheader(a, strings.Replace(plainHeader, "ES256", "ESB256", 1)) }),
		"alg that only the server knows": altered(func(a string) string { return reheader(a, strings.Replace(plainHeader, "ES256", "XX1", 1)) }, "XX1"),
		"other claims that are null":     inClaims(`{`, `{"nbf":null,"iss":null,"aud":{"a":[null]},`),
		"other claims of odd types":      inClaims(`{`, `{"nbf":"x","iss":7,"jti":[],"status":1e400,`),
		"cnf with more members":          inClaims(`"cnf":{`, `"cnf":{"kid":1,"x5t#S256":null,"jku":[],`),
		"cnf.jwk with a certificate":     withJWK(func(jwk map[string]any) { jwk["x5c"] = []string{brainpoolCA} }),
		"cnf.jwk with odd x5t, x5u":      withJWK(func(jwk map[string]any) { jwk["x5t"], jwk["x5u"], jwk["x5t#S256"] = "!", 7, []int{1} }),
		"cnf.jwk with odd kid, use, alg": withJWK(func(jwk map[string]any) {
			jwk["kid"], jwk["use"], jwk["alg"], jwk["key_ops"] = 1, []int{}, "XX", "sign"
		}),
		"exp with an exponent":           claims("exp", json.RawMessage("4.102444800e9")),
		"exp with a large exponent":      claims("exp", json.RawMessage("4102444800000E-3")),
		"exp with a fraction":            claims("exp", json.RawMessage("4102444800.9999999999999999999")),
		"exp of many digits":             claims("exp", json.RawMessage("4102444800."+strings.Repeat("0", 5000))),
		"iat null":                       claims("iat", json.RawMessage("null")),
		"iat with an exponent":           claims("iat", json.RawMessage("1.7e9")),
		"iat 0":                          claims("iat", 0),
		"iat negative":                   claims("iat", -1.5),
		"signature that is not one":      altered(func(a string) string { return a[:strings.LastIndexByte(a, '.')] + ".AA" }),
		"sub beside one in another case": inClaims(`{`, `{"Sub":"other","SUB":7,"EXP":0,`),
	}
	if len(tests) != 35 {
		t.Errorf("%d tests, want 35", len(tests))
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			raw, arrived, err := tryAttestation(t, test)
			if len(arrived) != 1 || arrived[0] != raw {
				t.Errorf("%d attestations arrived, want this one, as it is: %v", len(arrived), err)
			}
		})
	}
}

// TestAttestationErrorsSayWhatAndWhere it is, and nothing is sent.
func TestAttestationErrorsSayWhatAndWhere(t *testing.T) {
	part := func(n int, change func(part string) string) attestationTest {
		return altered(func(a string) string {
			parts := strings.Split(a, ".")
			parts[n] = change(parts[n])
			return strings.Join(parts, ".")
		})
	}
	// The last of two characters for one byte has four bits that mean nothing.
	loose := func(part string) string {
		for strings.HasSuffix(part, "A") || len(part)%4 != 2 {
			part = base64.RawURLEncoding.EncodeToString([]byte(strings.TrimSuffix(string(mustDecode(part)), "}") + " }"))
		}
		return part[:len(part)-1] + string(part[len(part)-1]+1)
	}
	for name, test := range map[string]struct {
		attestationTest
		want string
	}{
		"two parts":                {altered(func(a string) string { return a[:strings.LastIndexByte(a, '.')] }), "it has 2 parts, not 3"},
		"encrypted":                {altered(func(a string) string { return a + ".a.b" }), "it has 5 parts, not 3"},
		"no header":                {part(0, func(string) string { return "" }), "its header is empty"},
		"no payload":               {part(1, func(string) string { return "" }), "its payload is empty"},
		"no signature":             {part(2, func(string) string { return "" }), "its signature is empty"},
		"padding of the header":    {part(0, func(p string) string { return p + "=" }), "its header is not base64url without padding"},
		"padding of the payload":   {part(1, func(p string) string { return p + "=" }), "its payload is not base64url without padding"},
		"padding of the signature": {part(2, func(p string) string { return p + "==" }), "its signature is not base64url without padding after 86 of 88 characters"},
		"base64 of the other kind": {part(2, func(p string) string { return "+" + p[1:] }), "its signature is not base64url without padding after 0 of 86"},
		"loose bits, header":       {part(0, loose), "its header is not base64url"},
		"loose bits, payload":      {part(1, loose), "its payload is not base64url"},
		"one character too many":   {part(0, func(p string) string { return p + strings.Repeat("A", 5-len(p)%4) }), "its header is not base64url"},
		"line end in the header":   {part(0, func(p string) string { return p[:8] + "\n" + p[8:] }), "its header has a line end after 8 characters"},
		"line end in the payload":  {part(1, func(p string) string { return p + "\r" }), "its payload has a line end"},
		"line end in signature":    {part(2, func(p string) string { return "\n" + p }), "its signature has a line end after 0"},
		"space":                    {part(1, func(p string) string { return " " + p }), "its payload is not base64url"},
		"zero byte":                {part(0, func(p string) string { return p + "\x00" }), "its header is not base64url"},
		"header a list":            {altered(func(a string) string { return reheader(a, `["ES256"]`) }), "its header is not a JSON object"},
		"header null":              {altered(func(a string) string { return reheader(a, `null`) }), "its header is not a JSON object, but null"},
		"header text":              {altered(func(a string) string { return reheader(a, `"x"`) }), "its header is not a JSON object"},
		"header cut off":           {altered(func(a string) string { return reheader(a, plainHeader[:20]) }), "its header is not a JSON object"},
		"two headers":              {altered(func(a string) string { return reheader(a, plainHeader+plainHeader) }), "its header is not a JSON object"},
		"BOM":                      {altered(func(a string) string { return reheader(a, "\xef\xbb\xbf"+plainHeader) }), "its header is not a JSON object"},
		"header not UTF-8":         {altered(func(a string) string { return reheader(a, strings.Replace(plainHeader, "{", "{\"x\":\"\xff\",", 1)) }), "its header is not UTF-8"},
		"payload not UTF-8":        {inClaims(`{`, "{\"x\":\"\xc3\","), "its payload is not UTF-8"},
		"payload UTF-16":           {altered(func(a string) string { return repayload(a, "\xff\xfe{\x00}\x00") }), "its payload is not UTF-8"},
		"alg twice":                {withHeader(`"alg":"ES256"`), "its header is not a JSON object: \"json: duplicate key 'alg'"},
		"kid twice":                {withHeader(`"kid":"a","kid":"b"`), "duplicate key 'kid'"},
		"sub twice":                {inClaims(`{`, `{"sub":"client",`), "its payload is not a JSON object: \"json: duplicate key 'sub'"},
		"sub twice, escaped":       {inClaims(`{`, `{"s\u0075b":"client",`), "duplicate key 'sub'"},
		"exp twice":                {inClaims(`{`, `{"exp":4102444800,`), "duplicate key 'exp'"},
		"cnf twice":                {inClaims(`{`, `{"cnf":{},`), "duplicate key 'cnf'"},
		"jwk twice in cnf":         {inClaims(`"cnf":{`, `"cnf":{"jwk":{},`), "its cnf is not a JSON object: \"json: duplicate key 'jwk'"},
		"x twice in cnf.jwk":       {inClaims(`"jwk":{`, `"jwk":{"x":"AA",`), "its jwk is not a JSON object: \"json: duplicate key 'x'"},
		"long name twice":          {inClaims(`{`, `{"`+strings.Repeat("n", 9000)+`":1,"`+strings.Repeat("n", 9000)+`":1,`), "its payload is not a JSON object"},
		"line end in a name":       {inClaims(`{`, `{"\n":1,"\n":1,`), "its payload is not a JSON object"},
		"typ a list":               {altered(func(a string) string { return reheader(a, `{"alg":"ES256","typ":["oauth-client-attestation+jwt"]}`) }), "the typ in its header is not a string"},
		"typ null":                 {altered(func(a string) string { return reheader(a, `{"alg":"ES256","typ":null}`) }), `its typ is "", not "oauth-client-attestation+jwt"`},
		"no typ":                   {altered(func(a string) string { return reheader(a, `{"alg":"ES256"}`) }), `its typ is "", not`},
		"TYP":                      {altered(func(a string) string { return reheader(a, `{"alg":"ES256","TYP":"oauth-client-attestation+jwt"}`) }), `its typ is "", not`},
		"alg a list":               {altered(func(a string) string { return reheader(a, `{"alg":["ES256"],"typ":"oauth-client-attestation+jwt"}`) }), "the alg in its header is not a string"},
		"alg missing":              {altered(func(a string) string { return reheader(a, `{"typ":"oauth-client-attestation+jwt"}`) }), "its header has no alg"},
		"alg none":                 {altered(func(a string) string { return reheader(a, `{"alg":"none"}`) }, "none"), "it is not signed"},
		"alg nOnE":                 {altered(func(a string) string { return reheader(a, `{"alg":"nOnE"}`) }, "nOnE"), "it is not signed"},
		"alg of encryption":        {altered(func(a string) string { return reheader(a, `{"alg":"ECDH-ES"}`) }), `its alg "ECDH-ES" is not that of a signature`},
		"alg of another server":    {altered(func(a string) string { return reheader(a, `{"alg":"PS256"}`) }, "ES384", "ES512"), "PS256, only ES384 ES512"},
		"sub missing":              {claims("sub", nil), "it has no sub"},
		"sub null":                 {claims("sub", json.RawMessage("null")), "it has no sub"},
		"sub a number":             {claims("sub", 7), "the sub in its payload is not a string"},
		"cnf a list":               {claims("cnf", []int{}), "its cnf is not a JSON object"},
		"cnf null":                 {claims("cnf", json.RawMessage("null")), "it has no cnf.jwk"},
		"jwk a list":               {claims("cnf", map[string]any{"jwk": []int{}}), "its jwk is not a JSON object"},
		"jwk private":              {withJWK(func(jwk map[string]any) { jwk["d"] = nil }), "it has the member d"},
		"jwk of other members":     {withJWK(func(jwk map[string]any) { delete(jwk, "y") }), "its cnf.jwk is not a public key"},
		"jwk with x a number":      {withJWK(func(jwk map[string]any) { jwk["x"] = 1 }), "the x in its jwk is not a string"},
		"jwk on another curve":     {withJWK(func(jwk map[string]any) { jwk["crv"] = "P-384" }), "its cnf.jwk is not a public key"},
		"exp text":                 {claims("exp", "4102444800"), "the exp in its payload is not a number"},
		"exp true":                 {claims("exp", true), "the exp in its payload is not a number"},
		"exp object":               {claims("exp", map[string]int{}), "the exp in its payload is not a number"},
		"exp huge":                 {claims("exp", json.RawMessage("1e300")), "the exp in its payload is out of range"},
		"exp beyond any float":     {claims("exp", json.RawMessage("1e400")), "the exp in its payload is out of range"},
		"exp of many digits":       {claims("exp", json.RawMessage(strings.Repeat("9", 9000))), "the exp in its payload is out of range"},
		"exp of nanoseconds":       {claims("exp", json.RawMessage("4102444800000000000")), "the exp in its payload is out of range"},
		"exp negative and huge":    {claims("exp", json.RawMessage("-1e300")), "the exp in its payload is out of range"},
		"exp negative":             {claims("exp", -1), "it expired at 1969-12-31T23:59:59Z"},
		"exp with leading zero":    {inClaims(`"exp":`, `"exp":0`), "its payload is not a JSON object"},
		"iat text":                 {claims("iat", "1"), "the iat in its payload is not a number"},
		"iat a list":               {claims("iat", []int{1}), "the iat in its payload is not a number"},
		"iat huge":                 {claims("iat", json.RawMessage("1e300")), "the iat in its payload is out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			_, arrived, err := tryAttestation(t, test.attestationTest)
			if !errors.Is(err, client.ErrInvalidAttestation) || len(arrived) != 0 {
				t.Fatalf("%d arrived, error %v, want ErrInvalidAttestation", len(arrived), err)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want one with %q", err, test.want)
			}
			if text := err.Error(); len(text) > 500 || strings.ContainsAny(text, "\r\n\x00") {
				t.Errorf("error of %d bytes, or with control characters: %.600q", len(text), text)
			}
		})
	}
}

func mustDecode(part string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		panic(err)
	}
	return b
}

// TestAttestationWithCertificatesEndToEnd: such an attestation comes to the server
// byte for byte, over a restart, too.
func TestAttestationWithCertificatesEndToEnd(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	cache := newMemoryCache()
	r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
		header := fmt.Sprintf(`{"alg":"ES256","typ":"oauth-client-attestation+jwt","x5c":[%q,%q]}`, negativeSerial, brainpoolCA)
		return reheader(forge(t, req.Key, r.clock.now(), forgery{}), header), nil
	})
	for range 2 {
		_, err := r.client(t, func(cfg *client.Config) { cfg.Cache = cache }).Token(t.Context())
		if errors.Is(err, client.ErrInvalidAttestation) {
			t.Fatal(err)
		}
	}
	if got := sent(r); len(got) != 2 || got[0] != got[1] || len(r.attester.calls()) != 1 {
		t.Errorf("%d sent, attester asked %d times, want 2 and 1", len(got), len(r.attester.calls()))
	}
}
