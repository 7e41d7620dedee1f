// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/instancekey/instancekey/client"
	"golang.org/x/oauth2"
)

// userPatience is how long a user may take to authorize the device, if the server lets him.
const userPatience = 15 * time.Minute

// byUser gets a token that a user authorizes, with the browser of another device (RFC 8628).
func (r *tokenRun) byUser(ctx context.Context) (*oauth2.Token, error) {
	at, err := r.client.Endpoint(ctx)
	if err != nil {
		return nil, err
	}
	if at.DeviceAuthURL == "" {
		return nil, fmt.Errorf("%w: the server has no device_authorization_endpoint: use another -grant", client.ErrMetadata)
	}
	resources, err := r.client.ResourceParameters(ctx)
	if err != nil {
		return nil, err
	}
	var options []oauth2.AuthCodeOption
	for _, resource := range resources { // there is one at the most
		options = append(options, oauth2.SetAuthURLParam("resource", resource))
	}
	config := oauth2.Config{ClientID: r.flags.clientID, Endpoint: at, Scopes: strings.Fields(r.flags.scope)}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, r.http)
	asked, err := config.DeviceAuth(ctx, options...)
	if err != nil {
		return nil, err
	}
	sendsOf(ctx).keepSecret(asked.DeviceCode)
	if err := r.tellUser(asked); err != nil {
		return nil, err
	}
	return config.DeviceAccessToken(ctx, asked)
}

// tellUser shows on standard error where to authorize the device, on a terminal also as a
// QR code. What a server wants to be shown may be hostile.
func (r *tokenRun) tellUser(asked *oauth2.DeviceAuthResponse) error {
	if err := checkShown(asked); err != nil {
		return err
	}
	fmt.Fprintf(r.p.stderr, "To authorize this device, open %s\nand enter the code %s\n", asked.VerificationURI, asked.UserCode)
	place := asked.VerificationURIComplete
	if place == "" {
		place = asked.VerificationURI
	}
	if r.p.progress == nil {
		return nil
	}
	drawn, err := drawQR(place)
	if err == nil { // a text that is too long for one is shown above
		fmt.Fprintf(r.p.stderr, "or scan this:\n%s", drawn)
	}
	return nil
}

// checkShown refuses what is not for people's eyes.
func checkShown(asked *oauth2.DeviceAuthResponse) error {
	const longest = 300
	for _, text := range []string{asked.VerificationURI, asked.VerificationURIComplete, asked.UserCode} {
		if len(text) > longest || printable(text) != text || partOfJWT.MatchString(text) {
			return errors.New("the server's answer to the device authorization request cannot be shown")
		}
	}
	for _, text := range []string{asked.VerificationURI, asked.VerificationURIComplete} {
		u, err := url.Parse(text)
		if text != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
			return errors.New("the server's verification_uri is no web address")
		}
	}
	if asked.VerificationURI == "" || asked.UserCode == "" {
		return errors.New("the server's answer to the device authorization request has no verification_uri or no user_code")
	}
	return nil
}
