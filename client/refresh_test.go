// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

func TestRefresh(t *testing.T) {
	r := newRig(t, transporttest.Policy{Kind: transporttest.SingleUse})
	c := r.client(t)
	if _, err := c.Refresh(t.Context(), ""); err == nil || r.total() != 0 {
		t.Errorf("without a refresh token: %v, %d requests", err, r.total())
	}
	token, err := c.Refresh(t.Context(), "one-time")
	if err != nil || token.RefreshToken == "one-time" || token.RefreshToken == "" {
		t.Fatalf("refresh: %v", err)
	}
	var order []string
	for _, request := range r.Requests() {
		order = append(order, request.Endpoint)
	}
	if got := strings.Join(order, " "); got != "metadata challenge token" {
		t.Errorf("requests %s: the one-time token goes out last, and once", got)
	}
	form, err := url.ParseQuery(string(r.Requests(transporttest.Token)[0].Body))
	if err != nil || form.Get("refresh_token") != "one-time" || form.Get("grant_type") != "refresh_token" || form.Get("client_id") != r.ClientID {
		t.Errorf("form %v, %v", form, err)
	}

	r.edit(transporttest.Token, func(answer map[string]any) { delete(answer, "refresh_token") })
	if token, err := c.Refresh(t.Context(), "kept"); err != nil || token.RefreshToken != "kept" {
		t.Errorf("the server gives no new refresh token: %v, want the old one", err)
	}
}

func TestRefreshKeepsRotatedToken(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	r.edit(transporttest.Token, func(answer map[string]any) {
		answer["token_type"], answer["refresh_token"] = "Bearer", "rotated"
	})
	token, err := r.client(t, ownKey).Refresh(t.Context(), "one-time")
	if !errors.Is(err, client.ErrTokenType) {
		t.Errorf("error %v, want ErrTokenType", err)
	}
	if token == nil || token.RefreshToken != "rotated" || token.AccessToken != "" || token.Valid() {
		t.Errorf("token %v, want the new refresh token alone", token)
	}
}
