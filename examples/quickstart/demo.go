// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/report"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/examples/reference"
	"github.com/instancekey/instancekey/keystore"
)

const (
	clientID = "quickstart-client"
	scope    = "demo"
	keyName  = "quickstart"
)

// demonstrate gets a token with a key in the store and tells s what happens. It
// returns the key's thumbprint.
func demonstrate(ctx context.Context, flags *storeflag.Flags, s *story, r *reporting, stderr io.Writer) (thumbprint string, err error) {
	recorder := r.act("One token", flags.Store)
	defer func() { recorder.Fail(err) }()
	arranged, err := arrange(flags.Store)
	if err != nil {
		return "", err
	}
	flags.Boot = arranged.boot
	store, err := flags.Open(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	recorder.Fact("protection", store.Protection)

	o := newObserver(s, stderr, arranged)
	o.verdicts = newVerdicts(recorder, arranged.policy)
	servers, err := arranged.start(o)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, servers.Close()) }()
	o.attesterURL = servers.AttesterURL

	key, err := getToken(ctx, instance(servers, o.store(store), o), recorder)
	if err == nil {
		err = s.complete()
	}
	if err != nil {
		return "", err
	}
	return keystore.Thumbprint(key.Public())
}

// instance describes the client instance. In a program of your own, network is
// http.DefaultTransport, or left out.
func instance(servers *reference.Servers, store keystore.Store, network http.RoundTripper) client.Config {
	return client.Config{
		Issuer:   servers.Issuer,
		ClientID: clientID,
		Store:    store,
		KeyName:  keyName,
		Attester: client.HTTPAttester{
			URL:    servers.AttesterURL,
			Client: &http.Client{Transport: network},
		},
		Base: network,
	}
}

// getToken is the whole client instance. A program of your own needs no recorder.
func getToken(ctx context.Context, cfg client.Config, recorder *report.Recorder) (keystore.Key, error) {
	recorder.Attach(&cfg)
	c, err := client.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Token(ctx, scope); err != nil {
		return nil, err
	}
	return c.Key(), nil
}
