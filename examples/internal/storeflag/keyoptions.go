// SPDX-License-Identifier: Apache-2.0

package storeflag

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/instancekey/instancekey/tpm"
)

// KeyFlags are the flags that say what keys are created.
type KeyFlags struct {
	Algorithm string // -alg: "ES256" (also when empty) or "ES384"
	PINFile   string // -pin-file
	PCRs      string // -pcrs: "0,2,7"
}

// RegisterKeys adds -alg, -pin-file and -pcrs to a program's flags.
func (f *KeyFlags) RegisterKeys(fs *flag.FlagSet) {
	fs.StringVar(&f.Algorithm, "alg", "", "`algorithm` of a key that is created: ES256 or ES384 (default ES256)")
	fs.StringVar(&f.PINFile, "pin-file", "", "`file` with the PIN of TPM keys; a key that is created gets it")
	fs.StringVar(&f.PCRs, "pcrs", "", "bind a TPM key that is created to these `PCRs` as they are now, such as 0,2,7")
}

// RegisterPIN adds -pin-file alone, for a program that creates no keys.
func (f *KeyFlags) RegisterPIN(fs *flag.FlagSet) {
	fs.StringVar(&f.PINFile, "pin-file", "", "`file` with the PIN that the key was created with, if it has one")
}

// keyOptions are KeyFlags after checking.
type keyOptions struct {
	algorithm string
	pin       func() ([]byte, error) // nil: no PIN
	pcrs      []int
}

func (f *KeyFlags) options() (keyOptions, error) {
	o := keyOptions{algorithm: f.Algorithm}
	if !slices.Contains([]string{"", "ES256", "ES384"}, f.Algorithm) {
		return o, fmt.Errorf("-alg %.20q: use ES256 or ES384", f.Algorithm)
	}
	var err error
	if o.pcrs, err = ParsePCRs(f.PCRs); err != nil {
		return o, err
	}
	if f.PINFile != "" {
		o.pin = func() ([]byte, error) { return readAuth("-pin-file", f.PINFile) }
		if _, err := o.pin(); err != nil {
			return o, err
		}
	}
	return o, nil
}

// ParsePCRs reads the value of a flag -pcrs. "" is none.
func ParsePCRs(list string) (pcrs []int, err error) {
	if list == "" {
		return nil, nil
	}
	for text := range strings.SplitSeq(list, ",") {
		pcr, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || pcr < 0 || pcr > 23 || slices.Contains(pcrs, pcr) {
			return nil, fmt.Errorf("-pcrs %.60q: list numbers from 0 to 23, each once, such as 0,2,7", list)
		}
		pcrs = append(pcrs, pcr)
	}
	return pcrs, nil
}

func (o keyOptions) tpm() tpm.KeyOptions {
	return tpm.KeyOptions{Algorithm: o.algorithm, PIN: o.pin != nil, PCRs: o.pcrs}
}
