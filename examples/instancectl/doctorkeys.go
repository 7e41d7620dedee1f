// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// examineKeys looks at the folder and at each key in it. works says that the TPM
// does: whatever goes wrong then is the folder's fault.
func (d *doctor) examineKeys(ctx context.Context, works bool) {
	const check = "key folder"
	dir := d.flags.store.Keys
	_, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist): // opening the store would make it
		d.warn(check, "it is made with the first key; correct -keys if there should be keys", "%s is not there", dir)
		return
	case err != nil:
		d.fail(check, "let the user that the program runs as have the folder", "%v", err)
		return
	case !works:
		d.warn(check, "see the TPM first", "%s was not looked into, without a TPM", dir)
		return
	}
	store, err := d.open(ctx, &d.flags.store)
	if err != nil {
		d.fail(check, "make it a folder that only the user that the program runs as can write to: chmod go= "+dir, "%v", err)
		return
	}
	defer store.Close()
	names, err := store.List(ctx)
	if err != nil {
		d.fail(check, "let the user that the program runs as have the folder", "%v", err)
		return
	}
	d.ok(check, "%s has %s", dir, count(len(names), "key"))
	for _, name := range names {
		done := d.p.progress.step("examining the key " + name)
		d.key(ctx, store.Store.(*tpm.Store), name)
		done()
	}
}

func (d *doctor) key(ctx context.Context, store *tpm.Store, name string) {
	check := "key " + name
	description, err := store.Describe(ctx, name)
	if err != nil {
		d.fail(check, adviceOnKey(err, "chmod go= the file, and make it belong to the user that the program runs as"), "%v", err)
		return
	}
	if len(description.Damaged) > 0 {
		d.warn(check+" file", "restore it, or take it out of the file: whatever else reads the file gets none of it", "beside the key, which is whole, %s has a damaged %.200q", description.File, description.Damaged)
	}
	key, err := store.Open(ctx, name)
	if err != nil {
		d.fail(check, adviceOnKey(err, "see the TPM"), "%v", err)
		return
	}
	found := strings.Join(append([]string{description.Algorithm}, protection(description)...), ", ")
	if err := store.CheckPCRs(ctx, name); err != nil { // needs no PIN
		d.fail(check, adviceOnKey(err, "see the TPM"), "%v", err)
		return
	}
	switch {
	case !description.NoDA && d.lockedOut:
		d.warn(check, "see lockout", "%s; can be loaded, and does not sign now", found)
	case description.PIN || !description.NoDA: // a wrong try would count
		d.ok(check, "%s; can be loaded, no PIN was tried", found)
	default:
		if _, err := key.Sign(ctx, []byte("instancectl doctor")); err != nil {
			d.fail(check, adviceOnKey(err, "see the TPM"), "%v", err)
			return
		}
		d.ok(check, "%s; signs", found)
	}
}

// count returns a number and what there is so many of.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// adviceOnKey returns what to do about a key, or otherwise.
func adviceOnKey(err error, otherwise string) string {
	switch {
	case errors.Is(err, keystore.ErrKeyLost):
		return "the key is lost for good: instancectl key delete, and enrol anew"
	case errors.Is(err, keystore.ErrCorrupt):
		return "restore the file, or instancectl key delete and enrol anew"
	case errors.Is(err, errors.ErrUnsupported):
		return "leave the file to the program that made it, and make a key of another name"
	case errors.Is(err, keystore.ErrPolicy):
		return "boot what the key is bound to, or enrol with a new key"
	case errors.Is(err, keystore.ErrAuth) && strings.Contains(err.Error(), "owner hierarchy"):
		return "see owner hierarchy"
	case errors.Is(err, keystore.ErrAuth), errors.Is(err, tpm2.TPMRCIntegrity):
		return "do what it says about the key's parent; the key need not be lost"
	case errors.Is(err, keystore.ErrLockedOut):
		return "see lockout"
	}
	return otherwise
}
