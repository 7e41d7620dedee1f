// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/report"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// TestSteps: each step of a run, in its order, with its requests and messages.
func TestSteps(t *testing.T) {
	w := newWorld(t)
	recorder, err := w.run(nil)
	if err != nil {
		t.Fatal(err)
	}
	act := recorder.Act()
	if got, want := order(act), "a metadata b c d 1 2 3 4 5"; got != want {
		t.Errorf("steps %s, want %s", got, want)
	}
	for id, requests := range map[report.StepID]int{report.SendEvidence: 2, report.Metadata: 1, report.AskChallenge: 1, report.SendProof: 1} {
		if s := step(act, id); s.Requests != requests || !took(s.Network) || s.Count != 1 {
			t.Errorf("step %s: %+v", id, s)
		}
	}
	for _, id := range []report.StepID{report.CreateKey, report.SendEvidence, report.MakeProof} {
		if s := step(act, id); !took(s.TPM) {
			t.Errorf("step %s: no time of the key", id)
		}
	}
	for id, want := range map[report.StepID]string{
		report.CreateKey: "key created", report.SendEvidence: "POST " + attesterURL + "/challenge", report.AskChallenge: "POST " + issuer + "/challenge",
		report.Challenge: "200 OK", report.MakeProof: "signed with the Client Instance Key", report.SendProof: "POST " + issuer + "/token",
		report.Answer: "200 OK", report.Attestation: "200 OK",
	} {
		if got := step(act, id).Messages[0].Line; got != want {
			t.Errorf("step %s: %q, want %q", id, got, want)
		}
	}
	if jwts := step(act, report.SendProof).Messages[0].JWTs; len(jwts) != 2 || jwts[0].Name != "OAuth-Client-Attestation" || jwts[1].Name != "OAuth-Client-Attestation-PoP" {
		t.Errorf("step 4 has the JWTs %+v", jwts)
	}
	if act.Failure != nil || !took(act.Duration) || len(act.Spans) < 6 {
		t.Errorf("%+v", act)
	}
	page, _, _ := written(t, act)
	for _, want := range []string{"the-challenge", "attesters-challenge", "oauth-client-attestation-pop&#43;jwt", "went through", "client_credentials"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
}

// TestAttesters: however an attestation comes, the report says so.
func TestAttesters(t *testing.T) {
	for name, tt := range map[string]struct {
		attester func(t *testing.T, w *world) client.Attester
		want     string
		from     report.Party
		at       report.StepID
	}{
		"push": {func(t *testing.T, w *world) client.Attester {
			key, err := w.store.Create(t.Context(), "key")
			if err != nil {
				t.Fatal(err)
			}
			jwk, err := keystore.JWK(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "attestation")
			if err := os.WriteFile(file, []byte(w.sign(&jwk, map[string]any{})), 0o600); err != nil {
				t.Fatal(err)
			}
			return client.PushAttester{File: file}
		}, "a metadata f 1 2 3 4 5", report.Attester, report.Provisioned},
		"self": {func(_ *testing.T, w *world) client.Attester { return client.SelfAttester{Key: w.attester} },
			"a metadata d 1 2 3 4 5", report.Instance, report.Attestation},
		"own": {func(_ *testing.T, w *world) client.Attester { return own{w} },
			"a metadata b c d 1 2 3 4 5", report.Attester, report.Attestation},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			recorder, err := w.run(func(cfg *client.Config) { cfg.Attester = tt.attester(t, w) })
			if err != nil {
				t.Fatal(err)
			}
			act := recorder.Act()
			if got := order(act); got != tt.want {
				t.Errorf("steps %s, want %s", got, tt.want)
			}
			if s := step(act, tt.at); len(s.Messages) != 1 || s.Messages[0].From != tt.from || len(s.Messages[0].JWTs) != 1 {
				t.Errorf("step %s: %+v", tt.at, s)
			}
		})
	}
}

// own is an attester of a program's own.
type own struct{ w *world }

func (o own) Attest(_ context.Context, req client.AttestRequest) (string, error) {
	jwk, err := keystore.JWK(req.Key.Public())
	return o.w.sign(&jwk, map[string]any{}), err
}

// TestFailures: a run that failed shows which step has stopped it, and what to do.
func TestFailures(t *testing.T) {
	const fresh = "use_fresh_attestation"
	refuse := func(at string, status int, code string) func(*world, *client.Config) {
		return func(w *world, _ *client.Config) { w.gives(at, status, map[string]any{"error": code}) }
	}
	away := func(at string) func(*world, *client.Config) { return func(w *world, _ *client.Config) { w.away(at) } }
	metadata := issuer + "/.well-known/oauth-authorization-server"
	for name, tt := range map[string]struct {
		change func(*world, *client.Config)
		step   report.StepID
		remedy string
	}{
		"no key": {func(w *world, cfg *client.Config) { cfg.Store = badStore{w.store, keystore.ErrKeyLost} }, "a", "Enrol the device anew"},
		"no key to be used": {func(w *world, cfg *client.Config) {
			cfg.Store = badStore{w.store, fmt.Errorf("%w: %w", keystore.ErrPolicy, errors.ErrUnsupported)}
		}, "a", "make another key"},
		"no attester":    {away(attesterURL + "/challenge"), "b", "attester's URL"},
		"no attestation": {away(attesterURL + "/client-attestation"), "b", "attester's URL"},
		"evidence is wanted": {func(w *world, _ *client.Config) {
			w.gives(attesterURL+"/challenge", 200, map[string]any{"challenge": "c", "pcrs": []int{}})
		}, "b", "Keep the key in a TPM"},
		"attester refuses": {refuse(attesterURL+"/client-attestation", 403, "policy_violation"), "c", "whoever runs the Client Attester"},
		"attester's fault": {refuse(attesterURL+"/client-attestation", 400, "invalid_pop"), "c", "Its log says more"},
		"attestation is none": {func(w *world, _ *client.Config) {
			w.gives(attesterURL+"/client-attestation", 200, map[string]any{"client_attestation": "x.y.z"})
		}, "d", "issue another one"},
		"push without file": {func(w *world, cfg *client.Config) {
			w.store.Create(w.t.Context(), "key")
			cfg.Attester = client.PushAttester{File: "/nonexistent"}
		}, "f", ""},
		"no server": {away(metadata), "metadata", "can be reached"},
		"other issuer": {func(w *world, _ *client.Config) {
			w.gives(metadata, 200, map[string]any{"issuer": "https://other.example.com", "token_endpoint": "https://other.example.com/t"})
		}, "metadata", "byte for byte"},
		"no challenge":          {away(issuer + "/challenge"), "1", ""},
		"challenge is refused":  {refuse(issuer+"/challenge", 503, "server_error"), "2", ""},
		"key does not sign":     {func(w *world, cfg *client.Config) { cfg.Store = nil; cfg.KeyName = ""; cfg.Key = broken(w) }, "3", "instancectl doctor"},
		"token is not answered": {away(issuer + "/token"), "4", "can be reached"},
		"client is refused":     {refuse(issuer+"/token", 401, "invalid_client"), "5", "registered"},
		"attestation refused":   {refuse(issuer+"/token", 400, "invalid_client_attestation"), "5", "trusts the attester"},
		"never fresh enough":    {refuse(issuer+"/token", 400, fresh), "5", "younger"},
		"too busy":              {refuse(issuer+"/token", 429, ""), "5", "later"},
		"token of other type": {func(w *world, _ *client.Config) {
			w.gives(issuer+"/token", 200, map[string]any{"access_token": "t", "token_type": "mac"})
		}, "5", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			recorder, err := w.run(func(cfg *client.Config) { tt.change(w, cfg) })
			if err == nil {
				t.Fatal("it did not fail")
			}
			act := recorder.Act()
			if f := act.Failure; f == nil || f.Step != tt.step || !strings.Contains(f.Remedy, tt.remedy) || f.Error == "" || f.Count != 1 {
				t.Fatalf("%+v of %v", f, err)
			}
			page, _, figure := written(t, act)
			link := fmt.Sprintf(`class="step failed" href="#act1-%s"`, tt.step)
			if isInFigure := tt.step != "metadata"; strings.Contains(page, link) != isInFigure || strings.Contains(figure, `class="step failed"`) != isInFigure {
				t.Error("the figure does not have the step in red")
			}
			if !strings.Contains(page, fmt.Sprintf(`class="detail failed" id="act1-%s"`, tt.step)) || !strings.Contains(page, "What to do:") {
				t.Error("the page does not have the failure at its step")
			}
		})
	}
}

// badStore has no key that can be used.
type badStore struct {
	keystore.Store
	err error
}

func (s badStore) Open(context.Context, string) (keystore.Key, error) { return nil, s.err }

// brokenKey signs what an attester wants, and no proof.
type brokenKey struct{ keystore.Key }

func broken(w *world) keystore.Key {
	key, err := w.store.Create(w.t.Context(), "broken")
	if err != nil {
		w.t.Fatal(err)
	}
	return brokenKey{key}
}

func (k brokenKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	header, _, _ := strings.Cut(string(input), ".")
	if text, _ := base64.RawURLEncoding.DecodeString(header); strings.Contains(string(text), "pop+jwt") {
		return nil, fmt.Errorf("no TPM: %w", keystore.ErrUnavailable)
	}
	return k.Key.Sign(ctx, input)
}

// TestEmptyRun: nothing has run, or nothing but the failure.
func TestEmptyRun(t *testing.T) {
	empty := report.NewRecorder(report.Options{}).Act()
	failed := report.NewRecorder(report.Options{Title: "x"})
	failed.Fail(errors.New("no TPM at this address"))
	failed.Fail(nil)
	if f := failed.Act().Failure; f == nil || f.Step != report.CreateKey || f.Count != 1 {
		t.Errorf("%+v", f)
	}
	for _, acts := range [][]report.Act{nil, {empty}, {failed.Act()}} {
		page, text, figure := written(t, acts...)
		if !strings.HasSuffix(page, "</html>\n") || !strings.HasSuffix(figure, "</svg>\n") || !strings.HasPrefix(text, "{") {
			t.Error("it is not whole")
		}
	}
	page, _, _ := written(t, failed.Act())
	if !strings.Contains(page, "no TPM at this address") || !strings.Contains(page, `class="step failed" href="#act1-a"`) {
		t.Error("the page does not say what has failed")
	}
}

// TestManyTokens: of a long run everything is counted and little is kept.
func TestManyTokens(t *testing.T) {
	const tokens = 1000
	w := newWorld(t)
	recorder := report.NewRecorder(report.Options{Software: true})
	cfg := w.config()
	recorder.Attach(&cfg)
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var failures int
	var asked atomic.Int64
	w.answers[issuer+"/token"] = func(rw http.ResponseWriter, req *http.Request) {
		if asked.Add(1)%100 == 0 {
			give(rw, 400, map[string]any{"error": "invalid_scope"})
			return
		}
		w.usual(rw, req)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	for worker := range 10 {
		group.Go(func() {
			for i := range tokens / 10 {
				_, err := c.Token(t.Context(), fmt.Sprintf("scope-%d-%d", worker, i))
				recorder.Fail(err)
				if err != nil {
					mu.Lock()
					failures++
					mu.Unlock()
				}
			}
		})
	}
	group.Wait()
	act := recorder.Act()
	for _, id := range []report.StepID{report.MakeProof, report.SendProof, report.Answer} {
		s := step(act, id)
		if s.Count != tokens || len(s.Messages) > 8 || id != report.MakeProof && s.MoreMessages+len(s.Messages) != tokens {
			t.Errorf("step %s ran %d times, %d messages and %d more", id, s.Count, len(s.Messages), s.MoreMessages)
		}
	}
	if failures != tokens/100 || act.Failure == nil || act.Failure.Count != failures || act.Failure.Step != report.Answer {
		t.Errorf("%d failures, %+v", failures, act.Failure)
	}
	if len(act.Spans) != 2000 || act.MoreSpans == 0 {
		t.Errorf("%d spans and %d more", len(act.Spans), act.MoreSpans)
	}
	page, _, _ := written(t, act)
	if len(page) > 1<<20 || !strings.Contains(page, "1\u202f000") {
		t.Errorf("the page has %d bytes", len(page))
	}
}

// TestTraceGoesOn: a program's own trace is called as before, and so is its network.
func TestTraceGoesOn(t *testing.T) {
	w := newWorld(t)
	called := make(map[string]int)
	var mu sync.Mutex
	hook := func(name string) func(context.Context, transport.TraceEvent) {
		return func(context.Context, transport.TraceEvent) {
			mu.Lock()
			defer mu.Unlock()
			called[name]++
		}
	}
	_, err := w.run(func(cfg *client.Config) {
		cfg.Trace = &client.Trace{
			Trace:   transport.Trace{Challenge: hook("challenge"), Signature: hook("signature"), Request: hook("request")},
			Renewal: hook("renewal"), Evidence: hook("evidence"),
			Key: func(ctx context.Context, _ keystore.Key, e transport.TraceEvent) { hook("key")(ctx, e) },
		}
	})
	if err != nil || len(called) != 6 {
		t.Errorf("%v, called %v", err, called)
	}
}

// took reports whether some time has passed, which Windows' clock may not show.
func took(d report.Milliseconds) bool { return d > 0 || d == 0 && runtime.GOOS == "windows" }
