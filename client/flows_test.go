// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// overOAuth2 returns a context in which golang.org/x/oauth2 uses c, and a
// configuration for its flows.
func overOAuth2(t *testing.T, r *rig, c *client.Client) (context.Context, *oauth2.Config) {
	t.Helper()
	endpoint, err := c.Endpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if endpoint.AuthStyle != oauth2.AuthStyleInParams {
		t.Errorf("AuthStyle %v", endpoint.AuthStyle)
	}
	return context.WithValue(t.Context(), oauth2.HTTPClient, c.HTTPClient()), &oauth2.Config{ClientID: r.ClientID, Endpoint: endpoint, Scopes: []string{"scope"}}
}

// wantForm checks the form of a request that the strict server has accepted.
func wantForm(t *testing.T, request transporttest.Request, wants map[string]string) {
	t.Helper()
	form, err := url.ParseQuery(string(request.Body))
	if err != nil || request.Code != "" {
		t.Errorf("form %q (%v), answered %d %s: %s", request.Body, err, request.Status, request.Code, request.Reason)
	}
	for name, want := range wants {
		if form.Get(name) != want {
			t.Errorf("form has %s %q, want %q", name, form.Get(name), want)
		}
	}
	if request.Attestation() == "" || request.PoP == nil {
		t.Error("request without attestation or PoP")
	}
}

func TestFlowAuthorizationCodeWithPKCE(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	r.edit(transporttest.Metadata, func(m map[string]any) { m["authorization_endpoint"] = "https://as.example.com/authorize" })
	ctx, config := overOAuth2(t, r, r.client(t))
	verifier := oauth2.GenerateVerifier()
	if authorize := config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)); !strings.HasPrefix(authorize, "https://as.example.com/authorize?") {
		t.Errorf("authorization URL %s", authorize)
	}
	token, err := config.Exchange(ctx, "code", oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	requests := r.Requests(transporttest.Token)
	if len(requests) != 1 {
		t.Fatalf("%d token requests, want 1", len(requests))
	}
	wantForm(t, requests[0], map[string]string{"grant_type": "authorization_code", "code": "code", "code_verifier": verifier, "client_id": r.ClientID})

	// C37: the refresh is authenticated too. One-time refresh tokens stay with
	// the token source.
	source := config.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken})
	if _, err := source.Token(); err != nil {
		t.Fatal(err)
	}
	requests = r.Requests(transporttest.Token)
	if len(requests) != 2 {
		t.Fatalf("%d token requests, want 2", len(requests))
	}
	wantForm(t, requests[1], map[string]string{"grant_type": "refresh_token", "refresh_token": token.RefreshToken})
	if requests[0].Attestation() != requests[1].Attestation() || requests[0].PoP.ID == requests[1].PoP.ID {
		t.Error("want one attestation and two PoPs")
	}
	if n := r.total(); n != 4 {
		t.Errorf("%d requests in all, want 4: metadata, challenge, two tokens", n)
	}
}

func TestFlowDeviceCode(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		device := r.endpoint("/device", map[string]any{
			"device_code": "device", "user_code": "USER", "verification_uri": "https://as.example.com/activate", "expires_in": 600, "interval": 5,
		})
		r.edit(transporttest.Metadata, func(m map[string]any) { m["device_authorization_endpoint"] = device })
		polls := 0
		r.Set(func(p *transporttest.Policy) {
			p.Intercept = func(w http.ResponseWriter, request transporttest.Request) bool {
				if request.Endpoint != transporttest.Token {
					return false
				}
				polls++
				if polls < 3 {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusBadRequest)
					_, _ = io.WriteString(w, `{"error":"authorization_pending"}`)
				}
				return polls < 3
			}
		})
		ctx, config := overOAuth2(t, r, r.client(t))
		response, err := config.DeviceAuth(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if response.UserCode != "USER" || r.visits("/device") != 1 {
			t.Errorf("answer %+v after %d requests", response, r.visits("/device"))
		}
		if _, err := config.DeviceAccessToken(ctx, response); err != nil {
			t.Fatal(err)
		}
		requests := r.Requests(transporttest.Token)
		if len(requests) != 3 {
			t.Fatalf("%d token requests, want 3", len(requests))
		}
		jtis := make(map[string]bool)
		for _, request := range requests {
			jtis[request.PoP.ID] = true
		}
		if len(jtis) != 3 {
			t.Errorf("%d different jtis in 3 polls", len(jtis))
		}
		wantForm(t, requests[2], map[string]string{"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": "device"})
	})
}

// postForm sends a form and returns the status of the answer.
func postForm(t *testing.T, c *http.Client, to string, form url.Values) int {
	t.Helper()
	resp, err := c.PostForm(to, form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	return resp.StatusCode
}

func TestFlowEveryEndpointIsAuthenticated(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	device := r.endpoint("/device", map[string]any{"device_code": "d"})
	backchannel := r.endpoint("/backchannel", map[string]any{"auth_req_id": "a"})
	r.edit(transporttest.Metadata, func(m map[string]any) {
		m["device_authorization_endpoint"], m["backchannel_authentication_endpoint"] = device, backchannel
		m["token_endpoint"] = m["token_endpoint"].(string) + "?tenant=1"
	})
	c := r.client(t).HTTPClient()
	for name, test := range map[string]struct {
		url  string
		form url.Values
		want int
	}{
		"token exchange (RFC 8693)":    {r.Endpoint(transporttest.Token) + "?tenant=1", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {"t"}}, 200},
		"CIBA poll":                    {r.Endpoint(transporttest.Token) + "?tenant=1", url.Values{"grant_type": {"urn:openid:params:grant-type:ciba"}, "auth_req_id": {"a"}}, 200},
		"beside a client_secret (C36)": {r.Endpoint(transporttest.Token), url.Values{"grant_type": {"client_credentials"}, "client_secret": {"s"}}, 200},
		"PAR (C50)":                    {r.Endpoint(transporttest.PAR), url.Values{"response_type": {"code"}, "client_id": {r.ClientID}}, 201},
		"introspection":                {r.Endpoint(transporttest.Introspection), url.Values{"token": {"t"}}, 200},
		"revocation":                   {r.Endpoint(transporttest.Revocation), url.Values{"token": {"t"}}, 200},
		"device authorization":         {device, url.Values{"client_id": {r.ClientID}}, 200},
		"CIBA":                         {backchannel, url.Values{"login_hint": {"l"}}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			before := r.total()
			if code := postForm(t, c, test.url, test.form); code != test.want {
				t.Errorf("the strict server answered %d, want %d", code, test.want)
			}
			requests := r.Requests()[before:]
			last := requests[len(requests)-1]
			if last.Attestation() == "" || last.PoP == nil || last.PoP.Audience != r.Issuer {
				t.Error("no attestation or PoP with the issuer as audience arrived")
			}
		})
	}
	if n := r.Count(transporttest.Metadata); n != 1 {
		t.Errorf("%d metadata requests, want 1", n)
	}
}

func TestEndpointsAreThoseOfMetadata(t *testing.T) {
	d := newDiscoverer(t, issuerURL)
	d.site.set(wellKnown, text(document(issuerURL, map[string]any{
		"authorization_endpoint": "https://as.example.com/authorize", "device_authorization_endpoint": "https://as.example.com/device",
	})))
	got, err := d.Endpoint(t.Context())
	want := oauth2.Endpoint{
		AuthURL: "https://as.example.com/authorize", DeviceAuthURL: "https://as.example.com/device", TokenURL: "https://as.example.com/token", AuthStyle: oauth2.AuthStyleInParams,
	}
	if err != nil || got != want {
		a, _ := json.Marshal(got)
		t.Errorf("endpoint %s, %v", a, err)
	}
}
