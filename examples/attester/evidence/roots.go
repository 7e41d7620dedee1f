package evidence

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Roots are the TPM makers that are trusted: their certificates, and their
// revocation lists. It is not changed after it was made.
type Roots struct {
	anchors, intermediates *x509.CertPool
	revoked                []*x509.RevocationList
}

// NewRoots returns Roots with the given certificates. A certificate that it has
// signed itself is a trust anchor, any other only a link to one.
func NewRoots(certificates []*x509.Certificate, revoked []*x509.RevocationList) *Roots {
	r := &Roots{anchors: x509.NewCertPool(), intermediates: x509.NewCertPool(), revoked: slices.Clone(revoked)}
	for _, c := range certificates {
		if bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil {
			r.anchors.AddCert(c)
		} else {
			r.intermediates.AddCert(c)
		}
	}
	return r
}

// LoadRoots reads the certificates (.pem, .crt, .cer, .der) and revocation lists
// (.crl) in a folder, PEM or DER. Other files are left alone; a file that cannot
// be read as what its name says is an error.
func LoadRoots(dir string) (*Roots, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	var certificates []*x509.Certificate
	var revoked []*x509.RevocationList
	for _, entry := range entries {
		extension := filepath.Ext(entry.Name())
		if !slices.Contains([]string{".pem", ".crt", ".cer", ".der", ".crl"}, extension) {
			continue
		}
		name := filepath.Join(dir, entry.Name())
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("evidence: %w", err)
		}
		if extension == ".crl" {
			revoked, err = appendParsed(revoked, data, x509.ParseRevocationList)
		} else {
			certificates, err = appendParsed(certificates, data, x509.ParseCertificate)
		}
		if err != nil {
			return nil, fmt.Errorf("evidence: %s: %w", name, err)
		}
	}
	if len(certificates) == 0 {
		return nil, fmt.Errorf("evidence: %s has no certificates of TPM makers", dir)
	}
	return NewRoots(certificates, revoked), nil
}

// appendParsed parses one DER object, or all of a PEM file.
func appendParsed[T any](list []*T, data []byte, parse func([]byte) (*T, error)) ([]*T, error) {
	block, rest := pem.Decode(data)
	if block == nil {
		parsed, err := parse(data)
		return append(list, parsed), err
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		parsed, err := parse(block.Bytes)
		if err != nil {
			return list, err
		}
		list = append(list, parsed)
	}
	return list, nil
}

// verify checks that a certificate was issued by a trusted TPM maker, is valid
// now, and has not been revoked.
func (r *Roots) verify(certificate *x509.Certificate, now time.Time) error {
	chains, err := certificate.Verify(x509.VerifyOptions{
		Roots:         r.anchors,
		Intermediates: r.intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return err
	}
	for _, chain := range chains {
		for i := range len(chain) - 1 {
			if err := r.checkRevocation(chain[i], chain[i+1], now); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkRevocation looks a certificate up in its issuer's revocation lists, if
// there are any. A list that is out of date makes the issuer's certificates
// worthless: what it says no longer counts, and what it will say is not known.
func (r *Roots) checkRevocation(certificate, issuer *x509.Certificate, now time.Time) error {
	for _, list := range r.revoked {
		if !bytes.Equal(list.RawIssuer, issuer.RawSubject) || list.CheckSignatureFrom(issuer) != nil {
			continue
		}
		if now.After(list.NextUpdate) {
			return fmt.Errorf("revocation list of %s is out of date since %v: get the new one", issuer.Subject, list.NextUpdate)
		}
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(certificate.SerialNumber) == 0 {
				return errors.New("has been revoked")
			}
		}
	}
	return nil
}
