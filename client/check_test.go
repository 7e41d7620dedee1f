// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport/transporttest"
)

type attestationTest struct {
	make func(t testing.TB, key keystore.Key, now time.Time) string
	algs []string // that the server lists
}

func forged(f forgery, algs ...string) attestationTest {
	return attestationTest{func(t testing.TB, key keystore.Key, now time.Time) string { return forge(t, key, now, f) }, algs}
}

func altered(alter func(attestation string) string, algs ...string) attestationTest {
	return attestationTest{func(t testing.TB, key keystore.Key, now time.Time) string {
		return alter(forge(t, key, now, forgery{}))
	}, algs}
}

// claims is forged with other claims.
func claims(name string, value any) attestationTest {
	return forged(forgery{claims: map[string]any{name: value}})
}

var (
	testNow = newTestClock().now()
	mac     = jose.SigningKey{Algorithm: jose.HS256, Key: []byte(strings.Repeat("k", 32))}
)

func TestAttestationChecksC9(t *testing.T) {
	other := newKey(t, "ES256")
	otherJWK := jose.JSONWebKey{Key: other.Public()}
	thumbprint, err := keystore.Thumbprint(other.Public())
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]attestationTest{
		"typ of a PoP":        forged(forgery{header: map[string]any{"typ": "oauth-client-attestation-pop+jwt"}}),
		"typ JWT":             forged(forgery{header: map[string]any{"typ": "JWT"}}),
		"typ in another case": forged(forgery{header: map[string]any{"typ": "OAuth-Client-Attestation+JWT"}}),
		"typ as media type":   forged(forgery{header: map[string]any{"typ": "application/oauth-client-attestation+jwt"}}),
		"typ number":          forged(forgery{header: map[string]any{"typ": 1}}),
		"header no UTF-8": altered(func(a string) string {
			return reheader(a, "{\"alg\":\"ES256\",\"typ\":\"oauth-client-attestation+jwt\",\"x\":\"\xff\"}")
		}),
		"no typ": altered(func(a string) string { return reheader(a, `{"alg":"ES256"}`) }),
		"typ twice": altered(func(a string) string {
			return reheader(a, `{"alg":"ES256","typ":"JWT","typ":"oauth-client-attestation+jwt"}`)
		}),
		"no alg":                     altered(func(a string) string { return reheader(a, `{"typ":"oauth-client-attestation+jwt"}`) }),
		"alg none":                   altered(func(a string) string { return reheader(a, `{"alg":"none","typ":"oauth-client-attestation+jwt"}`) }),
		"alg none, signature empty":  altered(func(a string) string { return unsigned(a) }),
		"alg none, listed by server": altered(func(a string) string { return unsigned(a) }, "none", "ES256"),
		"alg NONE":                   altered(func(a string) string { return reheader(a, `{"alg":"NONE","typ":"oauth-client-attestation+jwt"}`) }),
		"alg made up":                altered(func(a string) string { return reheader(a, `{"alg":"XX256","typ":"oauth-client-attestation+jwt"}`) }),
		"alg of encryption": altered(func(a string) string {
			return reheader(a, `{"alg":"dir","enc":"A128GCM","typ":"oauth-client-attestation+jwt"}`)
		}),
		"alg not listed C7":             forged(forgery{}, "ES384", "PS256"),
		"MAC not listed C7":             forged(forgery{key: mac}, "ES256"),
		"signature empty":               altered(func(a string) string { return a[:strings.LastIndexByte(a, '.')+1] }),
		"iat as text":                   claims("iat", testNow.Format(time.RFC3339)),
		"sub of another client":         claims("sub", "other"),
		"sub with slash":                claims("sub", "client/"),
		"sub empty":                     claims("sub", ""),
		"sub missing":                   claims("sub", nil),
		"sub list":                      claims("sub", []string{"client"}),
		"sub number":                    claims("sub", 1),
		"cnf missing":                   claims("cnf", nil),
		"cnf empty":                     claims("cnf", map[string]any{}),
		"cnf string":                    claims("cnf", "key"),
		"cnf list":                      claims("cnf", []any{map[string]any{"jwk": otherJWK}}),
		"cnf jwk of another key":        claims("cnf", map[string]any{"jwk": otherJWK}),
		"cnf jwk null":                  claims("cnf", map[string]any{"jwk": json.RawMessage("null")}),
		"cnf jwk empty":                 claims("cnf", map[string]any{"jwk": map[string]any{}}),
		"cnf jwk private":               claims("cnf", map[string]any{"jwk": privateJWK(t)}),
		"cnf jwk symmetric":             claims("cnf", map[string]any{"jwk": map[string]any{"kty": "oct", "k": "AAAA"}}),
		"cnf jwk not on the curve":      claims("cnf", map[string]any{"jwk": map[string]any{"kty": "EC", "crv": "P-256", "x": strings.Repeat("A", 43), "y": strings.Repeat("A", 43)}}),
		"cnf jkt alone A4":              claims("cnf", map[string]any{"jkt": thumbprint}),
		"cnf kid alone A4":              claims("cnf", map[string]any{"kid": thumbprint}),
		"exp missing":                   claims("exp", nil),
		"exp null":                      claims("exp", json.RawMessage("null")),
		"exp now":                       claims("exp", testNow.Unix()),
		"exp past":                      claims("exp", testNow.Add(-time.Second).Unix()),
		"exp zero":                      claims("exp", 0),
		"exp negative":                  claims("exp", -1),
		"exp string":                    claims("exp", "2524608000"),
		"exp milliseconds out of range": claims("exp", json.RawMessage("1e300")),
		"exp beyond int64":              claims("exp", json.RawMessage("9223372036854775807")),
		"exp list":                      claims("exp", []int64{2524608000}),
		"empty":                         altered(func(string) string { return "" }),
		"space":                         altered(func(string) string { return " " }),
		"not a JWT":                     altered(func(string) string { return "attestation" }),
		"dots":                          altered(func(string) string { return ".." }),
		"five parts":                    altered(func(a string) string { return a + ".a.b" }),
		"two parts":                     altered(func(a string) string { return a[:strings.LastIndexByte(a, '.')] }),
		"two JWTs, comma":               altered(func(a string) string { return a + "," + a }),
		"two JWTs, newline":             altered(func(a string) string { return a + "\n" + a }),
		"newline inside":                altered(func(a string) string { return a[:50] + "\n" + a[50:] }),
		"CR LF and a header inside":     altered(func(a string) string { return a[:50] + "\r\nX-Evil: 1\r\n" + a[50:] }),
		"newline at the end":            altered(func(a string) string { return a + "\n" }),
		"space at the end":              altered(func(a string) string { return a + " " }),
		"tab in front":                  altered(func(a string) string { return "\t" + a }),
		"padding":                       altered(func(a string) string { return a + "==" }),
		"base64 of the other kind":      altered(func(a string) string { return "+/" + a }),
		"quoted":                        altered(func(a string) string { return `"` + a + `"` }),
		"JSON serialization":            altered(jsonSerialization),
		"PEM":                           altered(func(a string) string { return "-----BEGIN JWT-----\n" + a + "\n-----END JWT-----\n" }),
		"40 kB":                         claims("chain", strings.Repeat("c", 30<<10)),
		"claims are a list":             altered(func(a string) string { return repayload(a, `[]`) }),
		"claims are null":               altered(func(a string) string { return repayload(a, `null`) }),
		"claims are no JSON":            altered(func(a string) string { return repayload(a, `{`) }),
		"sub twice":                     altered(func(a string) string { return repayload(a, `{"sub":"other",`+payload(a)[1:]) }),
		"sub in another case":           altered(func(a string) string { return repayload(a, strings.Replace(payload(a), `"sub"`, `"Sub"`, 1)) }),
	}
	// The key's own JWK, and one member that no public key has.
	for _, member := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} {
		tests["cnf jwk with "+member] = attestationTest{make: func(t testing.TB, key keystore.Key, now time.Time) string {
			encoded, err := json.Marshal(jose.JSONWebKey{Key: key.Public()})
			var jwk map[string]any
			if err = errors.Join(err, json.Unmarshal(encoded, &jwk)); err != nil {
				t.Fatal(err)
			}
			jwk[member] = "AAAA"
			return forge(t, key, now, forgery{claims: map[string]any{"cnf": map[string]any{"jwk": jwk}}})
		}}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			raw := ""
			r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
				raw = test.make(t, req.Key, r.clock.now())
				return raw, nil
			})
			r.edit(transporttest.Metadata, func(m map[string]any) { m["client_attestation_signing_alg_values_supported"] = test.algs })
			c := r.client(t)
			_, err := c.Token(t.Context())
			if !errors.Is(err, client.ErrInvalidAttestation) {
				t.Fatalf("error %v, want ErrInvalidAttestation", err)
			}
			if sent := r.total() - r.Count(transporttest.Metadata); sent != 0 {
				t.Errorf("%d requests sent beside that for metadata, want 0", sent)
			}
			if n := r.store.signed.Load(); n != 0 {
				t.Errorf("%d signatures made, want 0", n)
			}
			if len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is long or has a newline: %q", err)
			}
			for _, part := range strings.Split(raw, ".") {
				if len(part) > 20 && strings.Contains(err.Error(), part[:20]) {
					t.Errorf("error quotes the attestation: %v", err)
				}
			}
		})
	}
}

func TestAttestationsThatPassC9(t *testing.T) {
	for name, test := range map[string]attestationTest{
		"plain":                  forged(forgery{}),
		"alg listed":             forged(forgery{}, "PS256", "ES256"),
		"MAC, server lists none": forged(forgery{key: mac}),
		"MAC, server lists it":   forged(forgery{key: mac}, "HS256"),
		"kid":                    forged(forgery{header: map[string]any{"kid": "11"}}),
		"other claims":           claims("wallet_name", "x"),
		"iss as in -07":          claims("iss", "https://attester.example.com"),
		"no iat A5":              claims("iat", nil),
		"iat in the future":      claims("iat", testNow.Add(time.Hour).Unix()),
		"exp in one second":      claims("exp", testNow.Add(time.Second).Unix()),
		"exp with a fraction":    claims("exp", float64(testNow.Unix())+100.5),
		"exp in 300 years":       claims("exp", testNow.Unix()+300*365*24*3600),
		"exp in three billion":   claims("exp", 3e9),
		"cnf jwk with use and kid": {func(t testing.TB, key keystore.Key, now time.Time) string {
			return forge(t, key, now, forgery{claims: map[string]any{"cnf": map[string]any{"jwk": jose.JSONWebKey{Key: key.Public(), Use: "sig", KeyID: "7", Algorithm: "ES256"}, "jkt": "x"}}})
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			// Whether a server takes it is another question: here it only has
			// to be sent.
			var sent []string
			r := newRig(t, transporttest.Policy{})
			r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
				sent = append(sent, test.make(t, req.Key, r.clock.now()))
				return sent[0], nil
			})
			r.edit(transporttest.Metadata, func(m map[string]any) { m["client_attestation_signing_alg_values_supported"] = test.algs })
			_, err := r.client(t).Token(t.Context())
			if errors.Is(err, client.ErrInvalidAttestation) {
				t.Fatal(err)
			}
			requests := r.Requests(transporttest.Token)
			if len(requests) != 1 || len(sent) != 1 || requests[0].Attestation() != sent[0] {
				t.Errorf("%d token requests, %d attestations; the attestation has to arrive as it is", len(requests), len(sent))
			}
		})
	}
}

func TestAttestationFromFileMayEndInSpace(t *testing.T) {
	for name, frame := range map[string][2]string{
		"newline":       {"", "\n"},
		"CR LF":         {"", "\r\n"},
		"spaces":        {" ", "  \n\n"},
		"nothing":       {"", ""},
		"tab and space": {"\t", " \t"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			key, err := r.store.Create(t.Context(), "key")
			if err != nil {
				t.Fatal(err)
			}
			attestation := r.Attester.Attest(key.Public())
			file := filepath.Join(t.TempDir(), "attestation.jwt")
			if err := os.WriteFile(file, []byte(frame[0]+attestation+frame[1]), 0o644); err != nil {
				t.Fatal(err)
			}
			c := r.client(t, func(cfg *client.Config) { cfg.KeyName, cfg.Attester = "key", client.PushAttester{File: file} })
			if _, err := c.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := r.Requests(transporttest.Token)[0].Attestation(); got != attestation {
				t.Error("another attestation arrived")
			}
		})
	}
}
