// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/client"
)

// TestProxyTakesNoAttestationAway: what stands between device and attester answers
// a renewal in the attester's place. The attestation that is valid stays, in memory
// and in the cache, and the attester is asked again as soon as it can be.
func TestProxyTakesNoAttestationAway(t *testing.T) {
	page := func(code int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Retry-After", strconv.Itoa(int(time.Hour/time.Second)))
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	for name, test := range map[string]struct {
		page http.HandlerFunc
		ends bool // the use of the attestation
	}{
		"refusal of the attester":    {page(403, "application/json", `{"error":"policy_violation"}`), true},
		"filter's page, 403":         {page(403, "text/html", "<html>Blocked by policy"), false},
		"filter's page, 451":         {page(451, "text/html", "<html>Blocked by law"), false},
		"gateway's JSON, 403":        {page(403, "application/json", `{"message":"Forbidden"}`), false},
		"framework's JSON, 403":      {page(403, "application/json", `{"status":403,"error":"Forbidden"}`), false},
		"captive portal, 200":        {page(200, "text/html", "<html>Log in"), false},
		"captive portal, 302":        {redirect(302, "https://portal.example.com/"), false},
		"captive portal, 511":        {page(511, "application/json", `{"error":"login_required"}`), false},
		"proxy that wants a login":   {page(407, "application/json", `{"error":"access_denied"}`), false},
		"error's code with 200":      {page(200, "application/json", `{"error":"policy_violation"}`), false},
		"load balancer without pool": {page(404, "text/plain", "default backend - 404"), false},
	} {
		for _, path := range []string{"/challenge", "/client-attestation"} {
			t.Run(name+" at "+path, func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					attester := newSite()
					attester.set(attesterURL+"/challenge", text(`{"challenge":"c"}`))
					good := func(w http.ResponseWriter, req *http.Request) {
						text(fmt.Sprintf(`{"client_attestation":%q}`, r.Attester.Attest(keyIn(t, req))))(w, req)
					}
					attester.set(attesterURL+"/client-attestation", good)
					dir := client.DirCache(t.TempDir())
					c := r.client(t, func(cfg *client.Config) {
						cfg.Cache = dir
						cfg.Attester = client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: inProcess{attester}}}
					})
					if err := grant(t.Context(), c); err != nil {
						t.Fatal(err)
					}
					attester.set(attesterURL+path, test.page)
					r.clock.advance(55 * time.Minute) // of the hour that it lives
					asked := len(attester.visits())
					if err := grant(t.Context(), c); err != nil {
						t.Fatal(err)
					}
					synctest.Wait() // for the renewal, which goes on behind it
					if len(attester.visits()) == asked {
						t.Fatal("nothing was renewed")
					}
					err := grant(t.Context(), c)
					if errors.Is(err, client.ErrAttestationRefused) != test.ends || (err != nil) != test.ends {
						t.Errorf("after it: %v, want a refusal: %t", err, test.ends)
					}
					if files, _ := filepath.Glob(filepath.Join(string(dir), "*")); (len(files) == 0) != test.ends {
						t.Errorf("%d files in the cache, want none: %t", len(files), test.ends)
					}
					if test.ends {
						return
					}
					attester.set(attesterURL+"/challenge", text(`{"challenge":"c"}`))
					attester.set(attesterURL+"/client-attestation", good)
					r.clock.advance(2 * time.Minute)
					for range 2 {
						if err := grant(t.Context(), c); err != nil {
							t.Error(err)
						}
						synctest.Wait()
					}
					if got := sent(r); got[0] != got[1] || got[0] != got[2] || got[len(got)-1] == got[0] {
						t.Errorf("%d requests: want the old attestation until there is a new one, two minutes later", len(got))
					}
				})
			})
		}
	}
}

// keyIn returns the key that a request for an attestation is signed with.
func keyIn(t *testing.T, req *http.Request) any {
	t.Helper()
	var message struct{ Request string }
	if err := json.NewDecoder(req.Body).Decode(&message); err != nil {
		t.Error(err)
	}
	jws, err := jose.ParseSignedCompact(message.Request, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Error(err)
		return nil
	}
	return jws.Signatures[0].Protected.JSONWebKey.Key
}
