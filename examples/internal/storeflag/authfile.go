// SPDX-License-Identifier: Apache-2.0

package storeflag

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/instancekey/instancekey/tpm"
)

// AuthFlags are the flags for a TPM whose hierarchies have passwords.
type AuthFlags struct {
	OwnerAuthFile       string // -owner-auth-file
	EndorsementAuthFile string // -endorsement-auth-file
}

// RegisterAuth adds -owner-auth-file and -endorsement-auth-file to a program's flags.
func (f *AuthFlags) RegisterAuth(fs *flag.FlagSet) {
	fs.StringVar(&f.OwnerAuthFile, "owner-auth-file", "", "`file` with the password of the TPM's owner hierarchy, if it has one")
	fs.StringVar(&f.EndorsementAuthFile, "endorsement-auth-file", "", "`file` with the password of the TPM's endorsement hierarchy, if it has one")
}

// read puts the passwords where package tpm wants them.
func (f *AuthFlags) read(cfg *tpm.Config) error {
	for _, file := range []struct {
		flag, name string
		to         *[]byte
	}{{"-owner-auth-file", f.OwnerAuthFile, &cfg.OwnerAuth}, {"-endorsement-auth-file", f.EndorsementAuthFile, &cfg.EndorsementAuth}} {
		if file.name == "" {
			continue
		}
		var err error
		if *file.to, err = readAuth(file.flag, file.name); err != nil {
			return err
		}
	}
	return nil
}

// readAuth reads the PIN or password in a flag's file as an editor leaves it: a line end
// after it is no part of it.
func readAuth(flag, name string) ([]byte, error) {
	const longest = 32 // bytes, for every TPM
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	defer file.Close()
	auth, err := io.ReadAll(io.LimitReader(file, longest+3)) // and \r\n, and one more to see that it is too long
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	auth = bytes.TrimRight(auth, "\r\n")
	if len(auth) == 0 || len(auth) > longest || bytes.IndexByte(auth, 0) >= 0 {
		return nil, fmt.Errorf("%s %s: what is in it must have 1 to %d bytes, none of them zero", flag, name, longest)
	}
	return auth, nil
}
