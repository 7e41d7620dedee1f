// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
)

// timeTimeout bounds the wait for the time, without which there may be a call just as well.
const timeTimeout = 10 * time.Second

// tokens are client.ResourceTokens: they are got, and the last one is kept over
// restarts. It is for one goroutine.
type tokens struct {
	*device
	client *client.Client
	kept   client.StoredToken // without a Token: none
	asked  bool               // the issuer, for the time
}

// newTokens looks for the token of the run before. One that belongs to another
// key, or cannot be read, is as good as none.
func newTokens(d *device, c *client.Client) *tokens {
	t := &tokens{device: d, client: c}
	stored, err := client.ReadStoredToken(d.tokenFile())
	if errors.Is(err, fs.ErrNotExist) {
		return t
	}
	if err == nil {
		_, err = c.Adopt(stored)
	}
	if err != nil {
		d.log.Warn("stored token not used", "error", err)
		return t
	}
	t.kept = stored
	return t
}

// Token returns a token that looks good.
func (t *tokens) Token(ctx context.Context, _ string) (*oauth2.Token, error) {
	current := t.current()
	if current.Valid() && !t.asked {
		// It is of the run before. By the clock that this one has started with it may look
		// younger than it is. What the issuer answers has the time.
		t.askTime(ctx)
		current = t.current()
	}
	if current.Valid() {
		return current, nil
	}
	if current != nil && current.RefreshToken != "" {
		if refreshed, err := t.refresh(ctx, current.RefreshToken); refreshed != nil || err != nil {
			return refreshed, err
		}
	}
	granted, err := t.grantNew(ctx)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	t.keep(granted)
	return granted, nil
}

// current returns the token that is kept, nil if there is none. It is adopted each time
// anew: when it expires by this device's clock changes when that is set.
func (t *tokens) current() *oauth2.Token {
	token, err := t.client.Adopt(t.kept)
	if err != nil {
		return nil
	}
	return token
}

// askTime fetches the issuer's metadata, which sooner or later is needed anyhow. Without
// an answer the token is tried as it is.
func (t *tokens) askTime(ctx context.Context) {
	t.asked = true
	ctx, cancel := context.WithTimeout(ctx, timeTimeout)
	defer cancel()
	if _, err := t.client.Endpoint(ctx); err != nil {
		t.log.Debug("the issuer does not say what time it is", "error", err)
	}
}

// Refused forgets an access token, not the refresh token.
func (t *tokens) Refused(token *oauth2.Token) {
	t.client.Forget(token)
	t.kept.Token = &oauth2.Token{RefreshToken: token.RefreshToken}
}

// keep writes a token to disk before anything is done with it: the refresh
// token in it may have replaced the last one.
func (t *tokens) keep(token *oauth2.Token) {
	t.asked = true // by the request for it
	stored, err := t.client.Bind(token)
	if err == nil {
		t.kept = stored
		err = stored.Write(t.tokenFile())
	}
	if err != nil {
		t.log.Error("token not kept: the next start will need a new one", "error", err)
	}
}

// refresh gets a new token for the refresh token, nil if the server does not take
// that any more.
func (t *tokens) refresh(ctx context.Context, refreshToken string) (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	refreshed, err := t.client.Refresh(ctx, refreshToken)
	if refreshed != nil {
		t.keep(refreshed) // also with an error: the old refresh token may be used up
	}
	var refusal *transport.Error
	if errors.As(err, &refusal) && refusal.Code == "invalid_grant" {
		t.log.Warn("the refresh token has ended", "error", err)
		t.kept = client.StoredToken{}
		return nil, nil
	}
	return refreshed, err
}

func (t *tokens) grantNew(ctx context.Context) (*oauth2.Token, error) {
	if t.grant == "device_code" {
		return t.grantByUser(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return t.client.Token(ctx, t.scopes()...)
}

// grantByUser is the device authorization grant (RFC 8628): somebody with a
// browser authorizes the device, which has none.
func (t *tokens) grantByUser(ctx context.Context) (*oauth2.Token, error) {
	endpoint, err := t.client.Endpoint(ctx)
	if err != nil {
		return nil, err
	}
	if endpoint.DeviceAuthURL == "" {
		return nil, errors.New("the server's metadata has no device_authorization_endpoint: use -grant client_credentials")
	}
	config := oauth2.Config{ClientID: t.clientID, Endpoint: endpoint, Scopes: t.scopes()}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, t.client.HTTPClient())
	var options []oauth2.AuthCodeOption
	resources, err := t.client.ResourceParameters(ctx)
	if err != nil {
		return nil, err
	}
	for _, resource := range resources { // there is one at the most
		options = append(options, oauth2.SetAuthURLParam("resource", resource))
	}
	asked, err := config.DeviceAuth(ctx, options...)
	if err != nil {
		return nil, err
	}
	// A device with a display shows this there.
	t.log.Info("authorize this device", "at", asked.VerificationURI, "with_code", asked.UserCode)
	var tries backoff
	for {
		token, err := config.DeviceAccessToken(ctx, asked)
		// Both times are by the process's clock, which nobody sets.
		if err == nil || !isTemporary(err) || time.Now().After(asked.Expiry) {
			return token, err
		}
		// The network is away, not the user: what he was shown stays good.
		if err := t.wait(ctx, tries.next()); err != nil {
			return nil, err
		}
	}
}

func isTemporary(err error) bool {
	var failed interface{ Temporary() bool }
	return errors.As(err, &failed) && failed.Temporary()
}
