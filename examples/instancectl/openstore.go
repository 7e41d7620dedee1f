// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/keystore"
)

// A keyFolder is what a command needs of -keys.
type keyFolder int

const (
	existingFolder  keyFolder = iota // it makes no key, and so no folder
	anyFolder                        // it makes a key, and the folder
	temporaryFolder                  // and without -keys one that goes with it
)

// keyFolder is that of commands that make the key if it is not there.
func (f *clientFlags) keyFolder() keyFolder {
	if f.makesKey() {
		return temporaryFolder
	}
	return existingFolder
}

// errNoFolder: the folder of the keys is not there.
var errNoFolder = fmt.Errorf("%w: the folder -keys is not there: correct it, or make a key first", keystore.ErrNotFound)

// openStore opens the key store. A command that makes keys may do without -keys, with a
// warning; to others a temporary folder would look like an empty one. So would one that
// was misspelt, if it were made; and root's would be closed to the program that it is
// for. For these it is errNoFolder, unless the store cannot be opened at all.
func openStore(ctx context.Context, p *program, f *storeflag.Flags, folder keyFolder) (*storeflag.Store, error) {
	if err := f.Check(); err != nil {
		return nil, usageError{err}
	}
	if f.Keys == "" && folder != temporaryFolder {
		return nil, badUsage("-keys is missing: name the folder that the key files are in")
	}
	if _, err := os.Stat(f.Keys); folder == existingFolder && errors.Is(err, fs.ErrNotExist) {
		without := *f
		without.Keys = ""
		if store, err := p.open(ctx, &without); err != nil {
			return nil, err
		} else if err := store.Close(); err != nil {
			return nil, err
		}
		return nil, errNoFolder
	}
	store, err := p.open(ctx, f)
	if err == nil && store.Temporary {
		p.log.Warn("keys that are made now are gone when this command ends: use -keys DIR to keep them")
	}
	return store, err
}

func (p *program) open(ctx context.Context, f *storeflag.Flags) (*storeflag.Store, error) {
	p.warnReadable("-pin-file", f.PINFile)
	p.warnReadable("-owner-auth-file", f.OwnerAuthFile)
	p.warnReadable("-endorsement-auth-file", f.EndorsementAuthFile)
	done := p.progress.step("opening the key store")
	store, err := f.Open(ctx)
	done()
	if late := new(lateError); err != nil && errors.As(context.Cause(ctx), late) {
		return nil, *late // says more than that a context has ended
	}
	if err != nil {
		return nil, err
	}
	return store, nil
}
