// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
)

// register shows the client's metadata. It registers nothing: that is the operator's.
func register(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("register", "", "Shows what the client is to be registered with at the authorization server: client metadata (RFC 7591)\n"+
		"as JSON, to which the operator adds client_id, client_name, grant_types and the rest. With -method auto\n"+
		"the server's metadata is asked for. The key has to exist. Nothing is registered.\n\n"+aboutSelf)
	var f clientFlags
	f.register(fs, "required", "every command line")
	if err := p.parse(fs, args, ""); err != nil {
		return err
	}
	if f.issuer == "" {
		return badUsage("-issuer is missing")
	}
	if err := f.check(); err != nil {
		return err
	}
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
	store, err := openStore(ctx, p, &f.store, existingFolder)
	if err != nil {
		return err
	}
	defer store.Close()
	c, err := f.newClient(ctx, existing{store}, attester, network, p.log)
	if err != nil {
		return err
	}
	defer c.Close()
	if f.method == "auto" {
		done := p.progress.step("asking the server")
		_, err := c.Metadata(ctx)
		done()
		if err != nil {
			return err
		}
	}
	encoder := json.NewEncoder(p.stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(c.Registration())
}
