// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"

	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/keystore"
)

// keyFlags are those of a command about one key.
type keyFlags struct {
	store storeflag.Flags
	name  string
	json  bool
	inTPM bool // the command is for keys in a TPM
}

func (f *keyFlags) register(fs *flag.FlagSet) {
	store := "required"
	if f.inTPM {
		store = requiredTPM
	}
	f.store.RegisterDefaults(fs, store, "required")
	f.store.RegisterAuth(fs)
	fs.StringVar(&f.name, "name", "", "`name` of the key: 1 to 128 of A-Z a-z 0-9 . _ - (required)")
	fs.BoolVar(&f.json, "json", false, "print what there is to show as one JSON object on one line")
}

// parseKey parses the arguments of a command about one key. It checks the name,
// so that a bad one reaches no TPM.
func (p *program) parseKey(fs *flag.FlagSet, f *keyFlags, args []string, missing string) error {
	f.register(fs)
	if err := p.parse(fs, args, missing); err != nil {
		return err
	}
	if f.name == "" {
		return badUsage("-name is missing")
	}
	if err := keystore.CheckName(f.name); err != nil {
		return usageError{err}
	}
	if f.inTPM && f.store.Store == "soft" {
		return errNeedsTPM
	}
	return nil
}

// openKeyStore parses the arguments of a command about one key, and opens the
// store.
func (p *program) openKeyStore(ctx context.Context, fs *flag.FlagSet, f *keyFlags, args []string, folder keyFolder) (*storeflag.Store, error) {
	if err := p.parseKey(fs, f, args, ""); err != nil {
		return nil, err
	}
	return openStore(ctx, p, &f.store, folder)
}

func keyCreate(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("key create", "", "Makes a key under a name that is free, and shows it.")
	var f keyFlags
	f.store.RegisterKeys(fs)
	store, err := p.openKeyStore(ctx, fs, &f, args, anyFolder)
	if err != nil {
		return err
	}
	defer store.Close()
	done := p.progress.step("making the key")
	key, err := store.Create(ctx, f.name)
	done()
	if err != nil {
		return err
	}
	return p.showKey(ctx, &f, store, key)
}

func keyShow(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("key show", "", "Shows a key's public half, where it is and what protects it.")
	var f keyFlags
	store, err := p.openKeyStore(ctx, fs, &f, args, existingFolder)
	if err != nil {
		return err
	}
	defer store.Close()
	key, err := store.Open(ctx, f.name)
	if err != nil {
		return err
	}
	return p.showKey(ctx, &f, store, key)
}

func keyList(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("key list", "", "Lists the names of all keys, usable or not; with -json also whose a key is that token or attest has named.\nTo see what is the matter with one: key show.")
	var flags storeflag.Flags
	flags.RegisterDefaults(fs, "required", "required")
	flags.RegisterAuth(fs)
	asJSON := fs.Bool("json", false, "print one JSON object on one line for each key: name, and issuer and client_id where token or attest has named it")
	if err := p.parse(fs, args, ""); err != nil {
		return err
	}
	store, err := openStore(ctx, p, &flags, existingFolder)
	if errors.Is(err, errNoFolder) {
		p.log.Warn("there are no keys", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer store.Close()
	names, err := store.List(ctx)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(p.stdout)
	for _, name := range names {
		if *asJSON {
			err = encoder.Encode(struct {
				Name string `json:"name"`
				keyLabel
			}{name, readLabel(store.Dir, name)})
		} else {
			_, err = fmt.Fprintln(p.stdout, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func keyDelete(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("key delete", "", "Destroys a key. Attestations and refresh tokens for it become useless.\nA name that holds no key is not an error.")
	var f keyFlags
	store, err := p.openKeyStore(ctx, fs, &f, args, existingFolder)
	if errors.Is(err, errNoFolder) {
		p.log.Warn("there is no key", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Delete(ctx, f.name); err != nil {
		return err
	}
	return removeLabel(store.Dir, f.name)
}
