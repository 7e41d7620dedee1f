// SPDX-License-Identifier: Apache-2.0

package storeflag

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
)

// EKFlags are the flags of a program that enrols with an attester.
type EKFlags struct {
	EKCertificates string // -ek-certificates
}

// RegisterEK adds -ek-certificates to a program's flags.
func (f *EKFlags) RegisterEK(fs *flag.FlagSet) {
	fs.StringVar(&f.EKCertificates, "ek-certificates", "",
		"`file` (PEM or DER) with the certificate of the TPM's endorsement key, and links from it to the maker's root, for a TPM that has them not itself")
}

// certificates returns what is in the file, DER; nil if none is named.
func (f *EKFlags) certificates() ([][]byte, error) {
	if f.EKCertificates == "" {
		return nil, nil
	}
	text, err := os.ReadFile(f.EKCertificates)
	if err != nil {
		return nil, fmt.Errorf("-ek-certificates: %w", err)
	}
	list, err := parseCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("-ek-certificates %s: %w", f.EKCertificates, err)
	}
	return list, nil
}

func parseCertificates(text []byte) (list [][]byte, err error) {
	block, rest := pem.Decode(text)
	if block == nil { // DER
		certificates, err := x509.ParseCertificates(text)
		if err == nil && len(certificates) == 0 {
			err = errors.New("it is empty")
		}
		for _, c := range certificates {
			list = append(list, c.Raw)
		}
		return list, err
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("has a PEM block of the type %q", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("certificate %d in it: %w", len(list)+1, err)
		}
		list = append(list, block.Bytes)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("what follows certificate %d in it is no PEM", len(list))
	}
	return list, nil
}
