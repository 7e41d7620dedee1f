package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/instancekey/instancekey/keystore"
)

// What only some stores can do: those in a TPM.
type (
	persister interface {
		Persist(ctx context.Context, name string, handle uint32) error
		Unpersist(ctx context.Context, name string) error
	}
	importer interface {
		Import(ctx context.Context, name string, pem []byte) (keystore.Key, error)
	}
)

var errNeedsTPM = usageError{errors.New("only keys in a TPM can do this: choose another -store")}

func keyPersist(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("key persist", "HANDLE", "Keeps a key loaded in the TPM at a persistent handle, from 0x81000000 to 0x817fffff, which must be\n"+
		"free: signing is faster then. The key's file still has the key.")
	var f keyFlags
	store, err := p.openKeyStore(ctx, fs, &f, args, 1)
	if err != nil {
		return err
	}
	defer store.Close()
	handle, err := strconv.ParseUint(fs.Arg(0), 0, 32)
	if err != nil {
		return badUsage("HANDLE %.40q: use a number such as 0x81010002", fs.Arg(0))
	}
	s, ok := store.Store.(persister)
	if !ok {
		return errNeedsTPM
	}
	return s.Persist(ctx, f.name, uint32(handle))
}

func keyUnpersist(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("key unpersist", "", "Removes a key from the TPM's persistent memory. The key goes on to be used from its file.")
	var f keyFlags
	store, err := p.openKeyStore(ctx, fs, &f, args, 0)
	if err != nil {
		return err
	}
	defer store.Close()
	s, ok := store.Store.(persister)
	if !ok {
		return errNeedsTPM
	}
	return s.Unpersist(ctx, f.name)
}

func keyImport(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("key import", "FILE", "Imports a key that was wrapped for this TPM, an importable TSS2 key in PEM, and shows it.")
	var f keyFlags
	store, err := p.openKeyStore(ctx, fs, &f, args, 1)
	if err != nil {
		return err
	}
	defer store.Close()
	s, ok := store.Store.(importer)
	if !ok {
		return errNeedsTPM
	}
	pem, err := readFile(fs.Arg(0))
	if err != nil {
		return usageError{err}
	}
	key, err := s.Import(ctx, f.name, pem)
	if err != nil {
		return err
	}
	return p.showKey(ctx, &f, store, key)
}
