// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
)

// A tokenRun is the getting of -n tokens.
type tokenRun struct {
	p       *program
	flags   *tokenFlags
	network *http.Transport
	store   *storeflag.Store
	client  *client.Client
	http    *http.Client
	counter *sendCounter
	refresh *refreshFile // nil: not asked for

	mu     sync.Mutex // of what follows, and of standard output
	failed int
	last   string // the last access token
}

// newRun opens what a run needs. It sends nothing.
func (f *tokenFlags) newRun(ctx context.Context, p *program) (r *tokenRun, err error) {
	r = &tokenRun{p: p, flags: f}
	if r.refresh, err = f.openRefresh(p); err != nil {
		return r, err
	}
	f.keyExists = r.refresh != nil && r.refresh.stored
	if r.network, err = newNetwork(f.caFile); err != nil {
		return r, err
	}
	attester, err := f.newAttester(p, r.network)
	if err != nil {
		return r, err
	}
	r.counter = &sendCounter{base: r.network}
	ctx, cancel := f.limit(ctx) // of what is opened; each token has its own
	defer cancel()
	if r.store, err = openStore(ctx, p, &f.store, f.keyFolder()); err != nil {
		return r, err
	}
	r.client, err = f.newClient(ctx, f.labelled(p, r.store), attester, r.counter, p.log)
	if err == nil && r.refresh != nil {
		err = r.refresh.bind(r.client)
	}
	if err != nil {
		r.close()
		return r, err
	}
	r.http = r.client.HTTPClient()
	return r, nil
}

func (r *tokenRun) close() {
	if r.client != nil {
		r.client.Close()
	}
	r.store.Close()
	r.network.CloseIdleConnections()
}

// notStarted prints the lines of tokens that nothing was sent for.
func (r *tokenRun) notStarted(err error) error {
	if errors.As(err, new(usageError)) || !r.flags.json {
		return err
	}
	for range r.flags.count {
		if err := json.NewEncoder(r.p.stdout).Encode(tokenLine{Error: word(err)}); err != nil {
			return err
		}
	}
	return err
}

// all gets all tokens, -c at a time.
func (r *tokenRun) all(ctx context.Context) error {
	numbers := make(chan int)
	var workers sync.WaitGroup
	for range min(r.flags.concurrency, r.flags.count) {
		workers.Go(func() {
			for number := range numbers {
				r.one(ctx, number)
			}
		})
	}
	for number := range r.flags.count {
		numbers <- number + 1
	}
	close(numbers)
	workers.Wait()

	if r.flags.out != "" && r.last != "" {
		if err := r.p.writeOut(r.flags.out, r.last); err != nil {
			return err
		}
	}
	if r.failed > 0 {
		return errFailed
	}
	return nil
}

// one gets one token and prints its line.
func (r *tokenRun) one(ctx context.Context, number int) {
	ctx, cancel := context.WithTimeout(ctx, r.flags.timeout)
	defer cancel()
	ctx, sent := r.counter.start(ctx)
	doing := fmt.Sprintf("getting token %d", number)
	if r.flags.grant == grantDevice {
		doing = "waiting for the user"
	}
	done := r.p.progress.step(doing)
	token, err := r.get(ctx)
	done()
	if err == nil && r.flags.resource != "" {
		err = r.call(ctx, token)
	}
	if err != nil {
		err = sent.explain(ctx, err)
		r.flags.recording.fail(err)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	line := tokenLine{number: number, Sends: r.counter.finish(sent)}
	if token != nil && token.AccessToken != "" {
		r.last = token.AccessToken
	}
	if err != nil {
		r.failed++
		line.Error = sent.conceal(word(err), hiddenCode)
		r.p.log.Error("token failed", "number", number, "error", sent.conceal(describe(err), line.Error))
	} else {
		line.TokenType, line.ExpiresIn = token.TokenType, expiresIn(token)
	}
	if r.flags.json {
		err = json.NewEncoder(r.p.stdout).Encode(line)
	} else {
		_, err = fmt.Fprintln(r.p.stdout, line)
	}
	if err != nil {
		r.failed++
		r.p.log.Error("standard output", "error", err)
	}
}

// get gets a token by a new grant: not by Client.Token, which keeps tokens.
func (r *tokenRun) get(ctx context.Context) (*oauth2.Token, error) {
	if r.flags.grant == grantRefresh {
		return r.refresh.use(ctx)
	}
	grant := r.byClient
	if r.flags.grant == grantDevice {
		grant = r.byUser
	}
	token, err := grant(ctx)
	if err != nil {
		return nil, err
	}
	wrong := r.checkType(ctx, token)
	if wrong != nil {
		token = &oauth2.Token{RefreshToken: token.RefreshToken, Expiry: time.Unix(1, 0)} // as of Client.Refresh
	}
	if r.refresh != nil {
		err = r.refresh.keep(token)
	}
	return token, errors.Join(wrong, err)
}

// byClient gets a token by client credentials.
func (r *tokenRun) byClient(ctx context.Context) (*oauth2.Token, error) {
	at, err := r.client.Endpoint(ctx)
	if err != nil {
		return nil, err
	}
	config := clientcredentials.Config{
		ClientID:  r.flags.clientID,
		TokenURL:  at.TokenURL,
		AuthStyle: at.AuthStyle,
		Scopes:    strings.Fields(r.flags.scope),
	}
	resources, err := r.client.ResourceParameters(ctx)
	if err != nil {
		return nil, err
	}
	if len(resources) > 0 {
		config.EndpointParams = url.Values{"resource": resources}
	}
	return config.Token(context.WithValue(ctx, oauth2.HTTPClient, r.http))
}

// checkType refuses a token that is not bound as asked, as Client.Token does.
func (r *tokenRun) checkType(ctx context.Context, token *oauth2.Token) error {
	wanted := "Bearer"
	key, err := r.client.DPoPThumbprint(ctx)
	if err != nil {
		return err
	}
	if key != "" {
		wanted = "DPoP"
	}
	if !strings.EqualFold(token.TokenType, wanted) {
		return fmt.Errorf("%w: %.40q, not %s", client.ErrTokenType, token.TokenType, wanted)
	}
	return nil
}

// tokenLine is what is printed of a token.
type tokenLine struct {
	number    int
	TokenType string `json:"token_type,omitempty"`
	ExpiresIn *int64 `json:"expires_in,omitempty"` // seconds; nil: the server does not say
	Error     string `json:"error,omitempty"`
	Sends     int    `json:"sends"`
}

func (l tokenLine) String() string {
	text := fmt.Sprintf("token %d: ", l.number)
	switch {
	case l.Error != "":
		text += "failed: " + l.Error
	case l.ExpiresIn == nil:
		text += l.TokenType + " token"
	default:
		text += fmt.Sprintf("%s token, expires in %d s", l.TokenType, *l.ExpiresIn)
	}
	return text + fmt.Sprintf(" (requests: %d)", l.Sends)
}

// expiresIn returns the server's expires_in, which some servers send as a string.
func expiresIn(token *oauth2.Token) *int64 {
	seconds, err := strconv.ParseFloat(fmt.Sprint(token.Extra("expires_in")), 64)
	if err != nil {
		return nil
	}
	whole := int64(seconds)
	return &whole
}
