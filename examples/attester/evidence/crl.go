// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A revocationList is a maker's list of what it has certified and does not
// vouch for any more (RFC 5280, section 5), after everything in it was understood.
type revocationList struct {
	list   *x509.RevocationList
	issuer []byte // comparableName of who has signed it
	// indirect lists have what other issuers have certified, those that cannot sign
	// a list themselves: the one on the die of a TPM, for example.
	indirect bool
	revoked  map[revokedCertificate]bool
}

type revokedCertificate struct {
	issuer string // comparableName
	serial string
}

// What a list says against a certificate.
var (
	errRevoked = errors.New("has been revoked")
	errNoList  = errors.New("the revocation list is missing")
)

// Extensions of lists and their entries (RFC 5280, section 5.2 and 5.3).
var (
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDeltaCRLIndicator        = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidCertificateIssuer        = asn1.ObjectIdentifier{2, 5, 29, 29}
	oidCRLDistributionPoints    = asn1.ObjectIdentifier{2, 5, 29, 31}

	understoodInLists   = []asn1.ObjectIdentifier{oidIssuingDistributionPoint, {2, 5, 29, 20} /* number */, {2, 5, 29, 35} /* authority key */}
	understoodInEntries = []asn1.ObjectIdentifier{oidCertificateIssuer, {2, 5, 29, 21} /* reason */, {2, 5, 29, 24} /* since */}
)

// newRevocationList reads a list that one of the known certificates, with
// comparable names, has signed. What is not understood in a list might be what
// matters.
func newRevocationList(list *x509.RevocationList, known []*x509.Certificate) (*revocationList, error) {
	l := &revocationList{list: list, issuer: comparableName(list.RawIssuer), revoked: make(map[revokedCertificate]bool)}
	if err := l.checkSigner(known); err != nil {
		return nil, err
	}
	if err := l.readExtensions(); err != nil {
		return nil, fmt.Errorf("revocation list of %s cannot be used: %w", list.Issuer, err)
	}
	of := l.issuer // until an entry says otherwise, then until the next one does
	for _, entry := range list.RevokedCertificateEntries {
		for _, extension := range entry.Extensions {
			if extension.Critical && !slices.ContainsFunc(understoodInEntries, extension.Id.Equal) {
				return nil, fmt.Errorf("revocation list of %s cannot be used: entry %v has the extension %v, which is not understood", list.Issuer, entry.SerialNumber, extension.Id)
			}
			if !extension.Id.Equal(oidCertificateIssuer) {
				continue
			}
			names := directoryNames(extension.Value)
			if !l.indirect || len(names) == 0 {
				return nil, fmt.Errorf("revocation list of %s cannot be used: entry %v names another issuer, and the list is not an indirect one, or the name is none", list.Issuer, entry.SerialNumber)
			}
			of = names[0]
		}
		l.revoked[revokedCertificate{string(of), entry.SerialNumber.String()}] = true
	}
	return l, nil
}

func (l *revocationList) checkSigner(known []*x509.Certificate) error {
	err := errors.New("no certificate of its issuer is among anchors and links: add it to the links")
	for _, c := range known {
		if bytes.Equal(c.RawSubject, l.issuer) {
			if err = l.list.CheckSignatureFrom(c); err == nil {
				return nil
			}
			err = fmt.Errorf("its signature does not verify: %w", err)
		}
	}
	return fmt.Errorf("revocation list of %s cannot be used: %w", l.list.Issuer, err)
}

func (l *revocationList) readExtensions() error {
	for _, extension := range l.list.Extensions {
		switch {
		case extension.Id.Equal(oidDeltaCRLIndicator):
			return errors.New("it is a delta list: get the complete one")
		case extension.Id.Equal(oidIssuingDistributionPoint):
			var point struct {
				Name           asn1.RawValue  `asn1:"optional,tag:0"`
				OnlyUsers      bool           `asn1:"optional,tag:1"`
				OnlyCAs        bool           `asn1:"optional,tag:2"`
				OnlyReasons    asn1.BitString `asn1:"optional,tag:3"`
				Indirect       bool           `asn1:"optional,tag:4"`
				OnlyAttributes bool           `asn1:"optional,tag:5"`
			}
			if rest, err := asn1.Unmarshal(extension.Value, &point); err != nil || len(rest) > 0 {
				return errors.New("its issuing distribution point cannot be read")
			}
			if point.OnlyReasons.BitLength > 0 || point.OnlyAttributes {
				return errors.New("it is for some reasons or for attribute certificates alone")
			}
			l.indirect = point.Indirect
		case extension.Critical && !slices.ContainsFunc(understoodInLists, extension.Id.Equal):
			return fmt.Errorf("it has the extension %v, which is not understood", extension.Id)
		}
	}
	return nil
}

// check looks a certificate up. A list that is out of date makes worthless what
// it is about: what it says no longer counts, and what it will say is not known.
// One that does not say until when it is good is good until it is replaced.
func (l *revocationList) check(certificate, issuer *x509.Certificate, now time.Time) error {
	ofIssuer := bytes.Equal(l.issuer, issuer.RawSubject) && l.list.CheckSignatureFrom(issuer) == nil
	revoked := l.revoked[revokedCertificate{string(issuer.RawSubject), certificate.SerialNumber.String()}] && (ofIssuer || l.indirect)
	switch {
	case revoked:
		return fmt.Errorf("the certificate %v of %q %w", certificate.SerialNumber, issuer.Subject, errRevoked)
	case !ofIssuer && !(l.indirect && l.isNamedBy(certificate)):
		return nil
	case !l.list.NextUpdate.IsZero() && now.After(l.list.NextUpdate):
		return fmt.Errorf("%w: that of %s is out of date since %v: get the new one", errNoList, l.list.Issuer, l.list.NextUpdate)
	}
	return nil
}

// isNamedBy reports whether a certificate says that the list's issuer keeps the
// list that it would be in.
func (l *revocationList) isNamedBy(certificate *x509.Certificate) bool {
	for _, extension := range certificate.Extensions {
		if !extension.Id.Equal(oidCRLDistributionPoints) {
			continue
		}
		var points []struct {
			Name    asn1.RawValue  `asn1:"optional,tag:0"`
			Reasons asn1.BitString `asn1:"optional,tag:1"`
			Issuer  asn1.RawValue  `asn1:"optional,tag:2"`
		}
		if _, err := asn1.Unmarshal(extension.Value, &points); err != nil {
			return true // it has one, and who knows which
		}
		for _, point := range points {
			names := generalNames(point.Issuer.Bytes)
			if slices.ContainsFunc(names, func(name []byte) bool { return bytes.Equal(name, l.issuer) }) {
				return true
			}
		}
	}
	return false
}

// directoryNames returns the directory names in DER GeneralNames, comparable.
func directoryNames(der []byte) [][]byte {
	var sequence asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &sequence); err != nil || len(rest) > 0 {
		return nil
	}
	return generalNames(sequence.Bytes)
}

// generalNames is directoryNames of what is in the SEQUENCE.
func generalNames(der []byte) (names [][]byte) {
	for len(der) > 0 {
		var name asn1.RawValue
		rest, err := asn1.Unmarshal(der, &name)
		if err != nil {
			return nil
		}
		if name.Class == asn1.ClassContextSpecific && name.Tag == 4 { // directoryName
			var sequence pkix.RDNSequence
			if _, err := asn1.Unmarshal(name.Bytes, &sequence); err == nil {
				names = append(names, comparableName(name.Bytes))
			}
		}
		der = rest
	}
	return names
}
