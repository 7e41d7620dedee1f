// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/internal/privatefile"
	"github.com/instancekey/instancekey/keystore"
)

// A keyLabel says whose a key is, whose name is a hash of that (client.DefaultKeyName):
// nobody could find the key of an issuer that was misspelt, say, to delete it. It is a file
// in the folder of the keys, whose name begins with a dot as no key's does.
type keyLabel struct {
	Issuer   string `json:"issuer,omitempty"`
	ClientID string `json:"client_id,omitempty"`
}

func labelFile(folder, name string) string { return filepath.Join(folder, "."+name+".label") }

// readLabel returns the zero label if there is none that can be read.
func readLabel(folder, name string) (label keyLabel) {
	if folder == "" {
		return label
	}
	text, err := privatefile.Read(labelFile(folder, name), maxFile)
	if err == nil {
		_ = json.Unmarshal(text, &label)
	}
	return label
}

// labelling is a store that labels the keys that it makes for a client.
type labelling struct {
	keystore.Store
	p      *program
	folder string
	label  keyLabel
}

// labelled returns the store for newClient.
func (f *clientFlags) labelled(p *program, store *storeflag.Store) keystore.Store {
	if f.name != "" || store.Temporary || store.Dir == "" {
		return store
	}
	return labelling{store, p, store.Dir, keyLabel{f.issuer, f.clientID}}
}

func (s labelling) Create(ctx context.Context, name string) (keystore.Key, error) {
	key, err := s.Store.Create(ctx, name)
	if err != nil || name != client.DefaultKeyName(s.label.Issuer, s.label.ClientID) {
		return key, err
	}
	s.p.log.Info("made a key", "name", name, "issuer", s.label.Issuer, "client_id", s.label.ClientID)
	text, err := json.Marshal(s.label)
	if err == nil {
		err = privatefile.Replace(labelFile(s.folder, name), text)
	}
	if err != nil {
		s.p.log.Warn("key list will not tell whose the key is", "error", err)
	}
	return key, nil
}

// removeLabel removes the label of a key that is gone.
func removeLabel(folder, name string) error {
	err := os.Remove(labelFile(folder, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
