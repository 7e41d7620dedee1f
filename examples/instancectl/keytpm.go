// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/instancekey/instancekey/tpm"
)

var errNeedsTPM = usageError{errors.New("only keys in a TPM can do this: choose another -store")}

// requiredTPM is what the help of -store says where errNeedsTPM is returned.
const requiredTPM = "required, and not soft"

func keyPersist(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("key persist", "HANDLE", "Stores a key permanently in the TPM, at the persistent HANDLE, a number from 0x81000000 to 0x817fffff\n"+
		"that is free: signing is faster then. The key's file still has the key.")
	f := keyFlags{inTPM: true}
	if err := p.parseKey(fs, &f, args, "HANDLE is missing, such as 0x81000100"); err != nil {
		return err
	}
	handle, err := strconv.ParseUint(fs.Arg(0), 0, 32)
	if err != nil {
		return badUsage("HANDLE %.40q: use a number such as 0x81000100", fs.Arg(0))
	}
	store, err := openStore(ctx, p, &f.store, existingFolder)
	if err != nil {
		return err
	}
	defer store.Close()
	defer p.progress.step("writing into the TPM's memory")()
	return store.Store.(*tpm.Store).Persist(ctx, f.name, uint32(handle))
}

func keyUnpersist(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("key unpersist", "", "Removes a key from the TPM's persistent memory. The key goes on to be used from its file.")
	f := keyFlags{inTPM: true}
	store, err := p.openKeyStore(ctx, fs, &f, args, existingFolder)
	if err != nil {
		return err
	}
	defer store.Close()
	return store.Store.(*tpm.Store).Unpersist(ctx, f.name)
}

func keyImport(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("key import", "FILE", "Imports a key that was wrapped for this TPM, an importable TSS2 key in PEM, and shows it.")
	f := keyFlags{inTPM: true}
	if err := p.parseKey(fs, &f, args, "FILE is missing, such as wrapped.pem"); err != nil {
		return err
	}
	pem, err := readFile(fs.Arg(0))
	if err != nil {
		return usageError{err}
	}
	store, err := openStore(ctx, p, &f.store, anyFolder)
	if err != nil {
		return err
	}
	defer store.Close()
	done := p.progress.step("importing the key")
	key, err := store.Store.(*tpm.Store).Import(ctx, f.name, pem)
	done()
	if err != nil {
		return err
	}
	return p.showKey(ctx, &f, store, key)
}
