// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/internal/jwtview"
	"github.com/instancekey/instancekey/keystore"
)

func attest(ctx context.Context, p *program, args []string) (err error) {
	fs := p.newFlags("attest", "", "Gets a Client Attestation and shows what is in it, without its signature. The key is created if it\n"+
		"does not exist, except with -attestation. -method and -dpop change nothing: they are for token, which\n"+
		"has the same flags.\n\n"+aboutSelf)
	var f clientFlags
	f.register(fs, "required without -name", "-attestation")
	out := fs.String("out", "", "write the Client Attestation JWT itself to this `file` (mode 0600); - is standard output, and all else then goes to standard error")
	asJSON := fs.Bool("json", false, "print one JSON object on one line")
	if err := p.parse(fs, args, ""); err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	if f.issuer == "" && f.name == "" {
		return badUsage("give -name, or the -issuer whose key is to be attested")
	}
	if *out != "" && *out != "-" {
		if err := checkWritable(*out); err != nil {
			return usageError{fmt.Errorf("-out: %w", err)}
		}
	}
	if err := f.recording.begin(f.store.Store); err != nil {
		return err
	}
	defer func() { err = f.recording.end("attest", err) }()
	p.keepsStdout(*out)
	network, err := newNetwork(f.caFile)
	if err != nil {
		return err
	}
	defer network.CloseIdleConnections()
	attester, err := f.newAttester(p, network)
	if err != nil {
		return err
	}
	ctx, cancel := f.limit(ctx)
	defer cancel()
	store, err := openStore(ctx, p, &f.store, f.keyFolder())
	if err != nil {
		return err
	}
	defer store.Close()
	key, err := f.openKey(ctx, f.labelled(p, store), attester, network)
	if err != nil {
		return err
	}
	done := p.progress.step("asking for the attestation")
	attestation, err := f.recording.attest(ctx, attester, client.AttestRequest{ClientID: f.clientID, Key: key, Issuer: f.issuer, Profile: profiles[f.profile]})
	done()
	if err != nil {
		return err
	}
	view, err := jwtview.Decode(attestation)
	if err != nil {
		return fmt.Errorf("client attestation: %w", err)
	}
	if *out != "" {
		if err := p.writeOut(*out, attestation); err != nil {
			return err
		}
	}
	if *asJSON {
		return json.NewEncoder(p.stdout).Encode(view)
	}
	_, err = fmt.Fprintln(p.stdout, view)
	return err
}

// openKey opens the key that token would use, or creates it where token would.
func (f *clientFlags) openKey(ctx context.Context, store keystore.Store, attester client.Attester, network http.RoundTripper) (keystore.Key, error) {
	if f.issuer != "" {
		c, err := f.newClient(ctx, store, attester, network, nil)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.Key(), nil
	}
	start := time.Now()
	created := false
	key, err := store.Open(ctx, f.name)
	if errors.Is(err, keystore.ErrNotFound) && f.attestation == "" {
		created = true
		key, err = keystore.OpenOrCreate(ctx, store, f.name)
	}
	f.recording.key(key, created, start)
	return key, err
}
