// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// started is the line that the program prints.
type started struct {
	Issuer   string `json:"issuer"`
	ClientID string `json:"client_id"`
	Seed     uint64 `json:"seed"`
	Control  string `json:"control"`
}

// start runs the program until the test ends, or stop is called, which returns
// what run does.
func start(t *testing.T, stderr io.Writer, args ...string) (line started, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, args, in, stderr)
		in.CloseWithError(io.ErrUnexpectedEOF)
		ended <- err
	}()
	if err := json.NewDecoder(out).Decode(&line); err != nil {
		t.Fatalf("%v; run returned %v", err, <-ended)
	}
	stop = func() error {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		return <-ended
	}
	return line, stop
}

func call(t *testing.T, method, url, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// source gets attestations as a client in another language would.
type source struct {
	t       *testing.T
	control string
	key     keystore.Key
}

func (s source) Attestation(context.Context, string, []string) (string, error) {
	jwk, err := json.Marshal(jose.JSONWebKey{Key: s.key.Public()})
	if err != nil {
		return "", err
	}
	status, attestation := call(s.t, http.MethodPost, s.control+"/attestation", string(jwk))
	if status != http.StatusOK {
		s.t.Errorf("%d %s", status, attestation)
	}
	return attestation, nil
}

func (source) Judged(string, bool) {}

// TestProgram sends requests to the program, and asks it what came.
func TestProgram(t *testing.T) {
	line, stop := start(t, io.Discard, "-kind", "single-use", "-seed", "7", "-client-id", "meter")
	if line.Seed != 7 || line.ClientID != "meter" {
		t.Errorf("printed %+v", line)
	}
	base, tenant := line.Issuer[:strings.LastIndex(line.Issuer, "/")], line.Issuer[strings.LastIndex(line.Issuer, "/"):]
	_, text := call(t, http.MethodGet, base+"/.well-known/oauth-authorization-server"+tenant, "")
	var metadata struct {
		Issuer    string `json:"issuer"`
		Token     string `json:"token_endpoint"`
		Challenge string `json:"challenge_endpoint"`
	}
	if err := json.Unmarshal([]byte(text), &metadata); err != nil || metadata.Issuer != line.Issuer {
		t.Fatalf("metadata %s: %v", text, err)
	}

	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keystore.FromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := transport.New(transport.Config{
		Key:          key,
		Attestations: source{t, line.Control, key},
		Servers:      []transport.Server{{Issuer: line.Issuer, Endpoints: []string{metadata.Token}, ChallengeEndpoint: metadata.Challenge}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const n = 40
	for range n {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, metadata.Token, strings.NewReader("grant_type=client_credentials"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	var came []request
	_, text = call(t, http.MethodGet, line.Control+"/requests", "")
	if err := json.Unmarshal([]byte(text), &came); err != nil {
		t.Fatal(err)
	}
	good, refused := 0, 0
	for _, r := range came {
		switch {
		case r.Endpoint == "token" && r.Status == http.StatusOK && r.Challenge != "":
			good++
		case r.Endpoint == "token" && r.Code == "use_attestation_challenge" && r.Offered != "":
			if r.Reason == "refused at random" { // the others teach the client that challenges are single-use
				refused++
			}
		case r.Endpoint == "token":
			t.Errorf("%+v", r)
		}
	}
	if good != n || refused == 0 {
		t.Errorf("%d good, %d refused", good, refused)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestControl: what a test may do to the server.
func TestControl(t *testing.T) {
	line, stop := start(t, io.Discard, "-combined", "-nonces")
	defer stop()
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/attestation", `{"kty":"oct","k":"AAAA"}`, 400},
		{"POST", "/attestation", "no JWK", 400},
		{"POST", "/rotate", "", 200},
		{"POST", "/rotate-nonce", "", 200},
		{"POST", "/deny", "an attestation", 200},
		{"GET", "/rotate", "", 405},
		{"GET", "/", "", 404},
	} {
		if status, answer := call(t, test.method, line.Control+test.path, test.body); status != test.status {
			t.Errorf("%s %s: %d %s, want %d", test.method, test.path, status, answer, test.status)
		}
	}
}

// TestTrapEndsInFailure: a credential that followed a redirect is a fault.
func TestTrapEndsInFailure(t *testing.T) {
	var stderr bytes.Buffer
	line, stop := start(t, &stderr, "-redirect", "307")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, line.Issuer, strings.NewReader("secret=1"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req) // follows the redirect, with the body
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := stop(); err == nil || !strings.Contains(stderr.String(), "reached a foreign origin with a body of 8 bytes") {
		t.Errorf("%v; stderr %q", err, stderr.String())
	}
}

// TestFlags: each field of a Policy that is no function has a flag that sets it.
func TestFlags(t *testing.T) {
	var zero transporttest.Policy
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	policyFlags(flags, &zero)
	sets := make(map[string]string) // a field to the flag that sets it
	flags.VisitAll(func(f *flag.Flag) {
		var p transporttest.Policy
		one := flag.NewFlagSet("", flag.ContinueOnError)
		policyFlags(one, &p)
		value := "1"
		for _, v := range []string{"none", "never", "gzip", "1s", "true"} {
			if one.Lookup(f.Name).Value.Set(v) == nil {
				value = v
				break
			}
		}
		if value == "1" {
			if err := one.Lookup(f.Name).Value.Set("1"); err != nil {
				t.Errorf("-%s: %v", f.Name, err)
			}
		}
		for i := range reflect.TypeFor[transporttest.Policy]().NumField() {
			if field := reflect.ValueOf(p).Field(i); !field.IsZero() {
				name := reflect.TypeFor[transporttest.Policy]().Field(i).Name
				if before, ok := sets[name]; ok {
					t.Errorf("-%s and -%s set %s", before, f.Name, name)
				}
				sets[name] = f.Name
			}
		}
	})
	for i := range reflect.TypeFor[transporttest.Policy]().NumField() {
		field := reflect.TypeFor[transporttest.Policy]().Field(i)
		if field.Type.Kind() != reflect.Func && sets[field.Name] == "" {
			t.Errorf("no flag sets %s", field.Name)
		}
	}
	for _, args := range [][]string{{"-kind", "x"}, {"-body", ""}, {"x"}, {"-addr", "127.0.0.1:x"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
