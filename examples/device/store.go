// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/tpm"
)

// storeForms are the values of -store. A product knows what its boards have, and
// needs no flag for it.
const storeForms = "a TPM's device such as /dev/tpmrm0, tbs on Windows, unix:PATH or tcp:HOST:PORT for a socket such as swtpm's, or soft, which is no TPM"

// A keyStore is a tpm.Store or a softkey.Store.
type keyStore interface {
	keystore.Store
	Close() error
}

// softStore holds nothing that has to be closed.
type softStore struct{ *softkey.Store }

func (softStore) Close() error { return nil }

// checkStore reports whether -store has one of the forms.
func checkStore(store string) error {
	kind, address, _ := strings.Cut(store, ":")
	isSocket := (kind == "unix" || kind == "tcp") && address != ""
	if store == "soft" || store == "tbs" && runtime.GOOS == "windows" || isSocket || filepath.IsAbs(store) {
		return nil
	}
	return fmt.Errorf("-store %.60q: use %s", store, storeForms)
}

// openStore opens the store whose key files are in the folder. Only the operator's
// word makes it a store in software: there is no way there from a TPM that fails.
// eventLog is for the machine's own TPM.
func openStore(ctx context.Context, store, folder string, eventLog func(context.Context) ([]byte, error)) (keyStore, error) {
	if store == "soft" {
		soft, err := softkey.OpenDir(folder)
		return softStore{soft}, err
	}
	return tpm.Open(ctx, tpmConfig(store, folder, eventLog))
}

func tpmConfig(store, folder string, eventLog func(context.Context) ([]byte, error)) tpm.Config {
	cfg := tpm.Config{Device: store, Dir: folder}
	if store == "tbs" || filepath.IsAbs(store) {
		cfg.EventLog = eventLog
	}
	if store == "tbs" {
		cfg.Device = "" // Windows' own
	}
	return cfg
}
