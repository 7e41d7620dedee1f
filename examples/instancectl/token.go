// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
)

// The values of -grant.
const (
	grantClient  = "client_credentials"
	grantRefresh = "refresh_token"
	grantDevice  = "device_code"
)

func checkGrant(grant string) error {
	if grant != grantClient && grant != grantRefresh && grant != grantDevice {
		return badUsage("-grant %.40q: use client_credentials, refresh_token or device_code", grant)
	}
	return nil
}

// tokenFlags are those of the token command.
type tokenFlags struct {
	clientFlags
	scope        string
	refresh, out string
	count        int
	concurrency  int
	json         bool
}

func (f *tokenFlags) register(fs *flag.FlagSet) {
	f.clientFlags.register(fs, "required", "-attestation and -grant refresh_token")
	fs.StringVar(&f.scope, "scope", "", "`scopes` to ask for, separated by spaces")
	fs.StringVar(&f.grant, "grant", grantClient, "the `grant`: client_credentials, refresh_token, or device_code, which a user authorizes with another device: what he has to do is shown on standard error, on a terminal with a QR code")
	fs.StringVar(&f.refresh, "refresh", "", "`file` with the refresh token, required with -grant refresh_token: one that a program wrote with client.StoredToken.Write, or that token wrote with another -grant and -refresh, or a bare token on one line; whenever the server gives a new one it is written there")
	fs.StringVar(&f.out, "out", "", "write the last access token to this `file` (mode 0600); - is standard output, and all else then goes to standard error")
	fs.StringVar(&f.resource, "resource", "", "ask for tokens for the protected resource at this `URL`, and call it with each")
	fs.StringVar(&f.resourceAttestation, "resource-attestation", "listed", "send the attestation to -resource `when`: listed (in the resource's metadata), always or never")
	fs.BoolVar(&f.resourceParameter, "resource-parameter", true, "name -resource in the request for the token; =false is for a server that answers invalid_target")
	fs.IntVar(&f.count, "n", 1, "get `N` tokens, each by a new grant")
	fs.IntVar(&f.concurrency, "c", 1, "get `C` of them at a time")
	fs.BoolVar(&f.json, "json", false, "print one JSON object on one line for each token: token_type and expires_in, seconds, if the server says when; or error, see above; and sends, the number of requests sent to the server and to -resource")
}

// check refuses a command line that cannot work.
func (f *tokenFlags) check() error {
	if f.issuer == "" {
		return badUsage("-issuer is missing")
	}
	if err := f.clientFlags.check(); err != nil {
		return err
	}
	if err := checkGrant(f.grant); err != nil {
		return err
	}
	if err := checkScope(f.scope); err != nil {
		return err
	}
	_, isResourceAttestation := resourceAttestations[f.resourceAttestation]
	switch {
	case f.refresh == "-":
		return badUsage("-refresh -: the refresh token has to be kept in a file")
	case f.grant == grantRefresh && f.refresh == "":
		return badUsage("-grant refresh_token needs -refresh FILE")
	case f.grant == grantDevice && f.count != 1:
		return badUsage("-n: a user authorizes one token at a time")
	case f.grant == grantRefresh && f.scope != "":
		return badUsage("-scope: a refreshed token has the scope that was granted at first")
	case !isResourceAttestation:
		return badUsage("-resource-attestation %.40q: use listed, always or never", f.resourceAttestation)
	case f.count < 1 || f.concurrency < 1:
		return badUsage("-n and -c must be 1 or more")
	}
	for _, file := range [][2]string{{"-out", f.out}, {"-refresh", f.refresh}} {
		if file[1] == "" || file == [2]string{"-out", "-"} {
			continue
		}
		if err := checkWritable(file[1]); err != nil {
			return usageError{fmt.Errorf("%s: %w", file[0], err)}
		}
	}
	return nil
}

func token(ctx context.Context, p *program, args []string) (err error) {
	fs := p.newFlags("token", "", "Gets access tokens at an authorization server that authenticates clients by attestation. The key is\n"+
		"created if it does not exist, except with -attestation or -grant refresh_token, which are for a key\n"+
		"that does. A token that fails does not stop the others.\n\n"+
		aboutSelf+"\n\n"+aboutErrors())
	var f tokenFlags
	f.register(fs)
	if err := p.parse(fs, args, ""); err != nil {
		return err
	}
	if f.grant == grantDevice && !given(fs, "timeout") {
		f.timeout = userPatience
	}
	if err := f.check(); err != nil {
		return err
	}
	if err := f.recording.begin(f.store.Store); err != nil {
		return err
	}
	defer func() { err = f.recording.end("token", err) }()
	p.keepsStdout(f.out)
	r, err := f.newRun(ctx, p)
	if err != nil {
		return r.notStarted(err)
	}
	defer r.close()
	return r.all(ctx)
}
