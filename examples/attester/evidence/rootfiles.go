// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxFile is the size of a file that is read, more than a maker's revocation list
// has.
const maxFile = 64 << 20

// certificateFile is one of the files of makers' certificates and lists.
type certificateFile struct {
	name         string
	certificates []*x509.Certificate
	lists        []*x509.RevocationList
	err          error // why nothing (more) can be read
}

// LoadRoots reads the makers that are trusted from the folder anchors, and from
// links, unless that is "", what leads from endorsement keys to these. Either has
// certificates (.pem, .crt, .cer, .der, in letters of any case) and revocation
// lists (those, and .crl), PEM or DER.
//
// What is of no use among the certificates is no error but a finding, one line
// with the file's name and the reason: one that cannot be read, a link that leads
// to no anchor, an anchor that has expired. A revocation list that cannot be used
// is an error, since whom it revokes would be welcome; so are no anchors at all.
func LoadRoots(anchors, links string, now time.Time) (roots *Roots, findings []string, err error) {
	trusted, findings, err := readFolder(anchors)
	if err != nil {
		return nil, nil, err
	}
	var leading []certificateFile
	if links != "" {
		var more []string
		if leading, more, err = readFolder(links); err != nil {
			return nil, nil, err
		}
		findings = append(findings, more...)
	}
	for _, file := range slices.Concat(trusted, leading) {
		if file.err != nil && strings.EqualFold(filepath.Ext(file.name), ".crl") {
			return nil, nil, fmt.Errorf("evidence: %s: not a revocation list: %w", file.name, file.err)
		}
		if file.err != nil {
			findings = append(findings, fmt.Sprintf("%s: is of no use: %v", file.name, file.err))
		}
	}
	if len(certificatesIn(trusted)) == 0 {
		return nil, nil, fmt.Errorf("evidence: %s has no certificates of TPM makers", strings.Join(append([]string{anchors}, findings...), "; "))
	}
	if roots, err = NewRoots(certificatesIn(trusted), certificatesIn(leading), nil); err != nil {
		return nil, nil, err
	}
	known := certificatesIn(slices.Concat(trusted, leading))
	for i, c := range known {
		known[i] = comparable(c)
	}
	for _, file := range slices.Concat(trusted, leading) {
		for _, list := range file.lists {
			usable, err := newRevocationList(list, known)
			if err != nil {
				return nil, nil, fmt.Errorf("evidence: %s: %w", file.name, err)
			}
			roots.lists = append(roots.lists, usable)
			if !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
				findings = append(findings, fmt.Sprintf("%s: the revocation list of %s is out of date since %v: what it is about is refused until you get the new one", file.name, list.Issuer, list.NextUpdate))
			}
		}
	}
	return roots, append(findings, roots.examine(trusted, leading, now)...), nil
}

// examine finds the certificates that can make no difference.
func (r *Roots) examine(anchors, links []certificateFile, now time.Time) (findings []string) {
	find := func(file certificateFile, c *x509.Certificate, why string) {
		findings = append(findings, fmt.Sprintf("%s: %q is of no use: %s", file.name, c.Subject, why))
	}
	for _, file := range anchors {
		for _, c := range file.certificates {
			switch {
			case c.Version == 3 && !(c.BasicConstraintsValid && c.IsCA):
				find(file, c, "it is not that of a CA")
			case now.Before(c.NotBefore) || now.After(c.NotAfter):
				find(file, c, fmt.Sprintf("it is valid from %v to %v", c.NotBefore, c.NotAfter))
			}
		}
	}
	for _, file := range links {
		for _, c := range file.certificates {
			if !c.IsCA {
				find(file, c, "it is not that of a CA")
			} else if _, err := r.verify(c, nil, now); err != nil {
				find(file, c, err.Error())
			}
		}
	}
	return findings
}

func certificatesIn(files []certificateFile) (all []*x509.Certificate) {
	for _, file := range files {
		all = append(all, file.certificates...)
	}
	return all
}

var certificateExtensions = []string{".pem", ".crt", ".cer", ".der", ".crl"}

// readFolder reads the files that certificates and lists are in. Others are named
// in the findings.
func readFolder(dir string) (files []certificateFile, findings []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("evidence: %w", err)
	}
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			continue
		}
		if !slices.Contains(certificateExtensions, strings.ToLower(filepath.Ext(name))) {
			findings = append(findings, fmt.Sprintf("%s: is left alone: its name does not end in %s", name, strings.Join(certificateExtensions, ", ")))
			continue
		}
		file := certificateFile{name: name}
		file.err = file.read()
		files = append(files, file)
	}
	return files, findings, nil
}

// read reads a PEM file with whatever is in it, or one DER object.
func (f *certificateFile) read() error {
	data, err := readFile(f.name)
	if err != nil {
		return err
	}
	block, rest := pem.Decode(data)
	if block == nil {
		return f.add(data)
	}
	for ; block != nil && err == nil; block, rest = pem.Decode(rest) {
		if err = f.add(block.Bytes); err != nil {
			err = fmt.Errorf("PEM block %d, %s: %w", len(f.certificates)+len(f.lists)+1, block.Type, err)
		}
	}
	return err
}

func (f *certificateFile) add(der []byte) error {
	certificate, err := x509.ParseCertificate(der)
	if err == nil {
		f.certificates = append(f.certificates, certificate)
		return nil
	}
	list, errOfList := x509.ParseRevocationList(der)
	if errOfList == nil {
		f.lists = append(f.lists, list)
		return nil
	}
	if strings.EqualFold(filepath.Ext(f.name), ".crl") {
		return errOfList
	}
	return err
}

func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errors.New("has more than 64 MiB")
	}
	return data, err
}
