// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// shown returns all that formatting, marshalling and logging make of v.
func shown(v any) map[string]string {
	texts := make(map[string]string)
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		texts[verb] = fmt.Sprintf(verb, v)
	}
	if b, err := json.Marshal(v); err == nil {
		texts["json"] = string(b)
	}
	var log bytes.Buffer
	for name, handler := range map[string]slog.Handler{"slog text": slog.NewTextHandler(&log, nil), "slog json": slog.NewJSONHandler(&log, nil)} {
		log.Reset()
		slog.New(handler).Info("message", "value", v, slog.Group("group", "value", v))
		texts[name] = log.String()
	}
	return texts
}

func TestRedaction(t *testing.T) {
	const hidden = "eyJSECRET.eyJSECRET.SECRET"
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	token, err := c.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	push := client.PushAttester{Attestation: hidden}
	request := client.AttestRequest{ClientID: "client", Rejected: hidden, Key: c.Key()}
	stored := client.StoredToken{Token: &oauth2.Token{AccessToken: hidden, RefreshToken: hidden}, Issuer: "issuer", ClientID: "client"}
	cfg := r.config()
	cfg.Attester = push
	values := map[string]any{
		"PushAttester":          push,
		"*PushAttester":         &push,
		"PushAttester in slice": []client.PushAttester{push},
		"AttestRequest":         request,
		"*AttestRequest":        &request,
		"StoredToken":           stored,
		"*StoredToken":          &stored,
		"StoredToken in map":    map[string]any{"a": stored},
		"StoredToken in struct": struct{ S client.StoredToken }{stored},
		"Config":                cfg,
		"*Client":               c,
		"HTTPClient":            c.HTTPClient(),
		"SelfAttester":          client.SelfAttester{Key: c.Key()},
	}
	secrets := []string{hidden, fmt.Sprintf("%x", hidden), token.AccessToken, token.RefreshToken, sent(r)[0]}
	count := 0
	for name, value := range values {
		for how, text := range shown(value) {
			count++
			for _, secret := range secrets {
				if strings.Contains(text, secret) {
					t.Errorf("%s shows a secret by %s: %.200s", name, how, text)
				}
			}
		}
	}
	if count < 5*len(values) {
		t.Errorf("%d texts looked at", count)
	}
	if text := stored.String(); !strings.Contains(text, "issuer") || !strings.Contains(text, "client") {
		t.Errorf("StoredToken prints as %s", text)
	}
	if text := (client.PushAttester{File: "/etc/attestation.jwt"}).String(); !strings.Contains(text, "/etc/attestation.jwt") {
		t.Errorf("PushAttester prints as %s", text)
	}
}
