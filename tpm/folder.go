// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/keyfolder"
	"github.com/instancekey/instancekey/internal/privatefile"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// folder keeps the key files.
type folder struct{ keyfolder.Folder }

func openFolder(dir string) (folder, error) {
	f, err := keyfolder.Open("tpm", dir)
	return folder{f}, err
}

// load reads and parses the key's file.
func (f folder) load(name string) (*keyfile.File, error) {
	text, err := f.Read(name)
	if err != nil {
		return nil, err
	}
	k, err := keyfile.Parse(text)
	if errors.Is(err, keystore.ErrCorrupt) {
		return nil, fmt.Errorf("tpm: key %q: %w: restore %s, or delete the key and enrol with a new one", name, err, f.File(name))
	}
	if err != nil {
		return nil, fmt.Errorf("tpm: key %q: %w: leave %s to the program that made it, and make a key of another name", name, err, f.File(name))
	}
	if k.Importable {
		return nil, fmt.Errorf("tpm: key %q: %w: %s is an importable key: use Import on it", name, keystore.ErrCorrupt, f.File(name))
	}
	return k, nil
}

// update writes a key's file anew, unless it is not any more what was read: a key
// that was deleted meanwhile must not come back. The folder is locked.
func (f folder) update(name string, read, written *keyfile.File) error {
	now, err := f.load(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(now.Text, read.Text) {
		return f.Error(name, keystore.ErrUnavailable, errors.New("another program has changed the file meanwhile: try again"))
	}
	return f.Replace(name, written.Text)
}

// pinned returns the Names that the folder's keys have pinned of a parent.
func (f folder) pinned(parent keyfile.Parent) (names [][]byte) {
	list, err := f.List()
	if err != nil {
		return nil // and no key can be written
	}
	for _, name := range list {
		k, err := f.load(name)
		if err == nil && k.Parent.Name != nil && k.Parent.Handle == parent.Handle && k.Parent.Template == parent.Template {
			names = append(names, k.Parent.Name)
		}
	}
	return names
}

// remains reads a key's file for deleting the key, whoever else may read it. k is nil
// if the key cannot be understood, and handle then says where it is persistent all the
// same; 0: nowhere. The error is of a file that cannot be read now, and so may be
// anything.
func (f folder) remains(name string) (k *keyfile.File, handle tpm2.TPMHandle, err error) {
	text, err := privatefile.ReadShared(f.File(name), keyfolder.MaxSize)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, privatefile.ErrNotPlain) || errors.Is(err, privatefile.ErrTooLarge):
		return nil, 0, nil // never was a key's
	case err != nil:
		return nil, 0, f.Error(name, keystore.ErrUnavailable, err)
	}
	if k, err = keyfile.Parse(text); err != nil {
		return nil, keyfile.HandleIn(text), nil
	}
	return k, 0, nil
}
