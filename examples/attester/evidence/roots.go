// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Roots are the TPM makers that are trusted: their certificates, and their
// revocation lists. It is not changed after it was made.
type Roots struct {
	anchors, links *x509.CertPool
	lists          []*revocationList
}

// NewRoots returns Roots with the given certificates. Each of the anchors is
// trusted, whoever has signed it, itself or not (RFC 5280, section 6.1: a trust
// anchor is what the operator says is one). Links are not trusted: they only lead
// from the certificate of an endorsement key to an anchor, as do those that
// devices send. A revocation list that cannot be used is an error: one that none
// of the certificates has signed, for example.
func NewRoots(anchors, links []*x509.Certificate, revoked []*x509.RevocationList) (*Roots, error) {
	r := &Roots{anchors: x509.NewCertPool(), links: x509.NewCertPool()}
	var known []*x509.Certificate
	for _, c := range anchors {
		c = comparable(c)
		r.anchors.AddCert(c)
		known = append(known, c)
	}
	for _, c := range links {
		c = comparable(c)
		r.links.AddCert(c)
		known = append(known, c)
	}
	for _, list := range revoked {
		usable, err := newRevocationList(list, known)
		if err != nil {
			return nil, fmt.Errorf("evidence: %w", err)
		}
		r.lists = append(r.lists, usable)
	}
	return r, nil
}

// verify checks that a certificate was issued by a trusted TPM maker, is valid
// now, and has not been revoked. links are the device's. It returns those of them
// that lead to the anchor.
func (r *Roots) verify(certificate *x509.Certificate, links []*x509.Certificate, now time.Time) (used []*x509.Certificate, err error) {
	pool := r.links.Clone()
	for _, link := range links {
		pool.AddCert(comparable(link))
	}
	chains, err := comparable(certificate).Verify(x509.VerifyOptions{
		Roots:         r.anchors,
		Intermediates: pool,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, explainChain(err)
	}
	var first error
	for _, chain := range chains {
		err := r.checkRevocation(chain, now)
		if err == nil {
			return linksIn(chain, links), nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// linksIn returns the certificates of a chain that are among links.
func linksIn(chain, links []*x509.Certificate) (used []*x509.Certificate) {
	for _, c := range chain[1:] {
		for _, link := range links {
			if c.Equal(link) {
				used = append(used, link)
				break
			}
		}
	}
	return used
}

// explainChain says of an error of Verify which certificate is meant: the issuer
// that nobody knows.
func explainChain(err error) error {
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) && unknown.Cert != nil {
		return fmt.Errorf("leads to no trusted maker: nothing among anchors and links is the issuer %q of %q: %w", unknown.Cert.Issuer, unknown.Cert.Subject, err)
	}
	return err
}

func (r *Roots) checkRevocation(chain []*x509.Certificate, now time.Time) error {
	for i := range len(chain) - 1 {
		for _, list := range r.lists {
			if err := list.check(chain[i], chain[i+1], now); err != nil {
				return err
			}
		}
	}
	return nil
}
