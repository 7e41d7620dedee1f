// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
)

// TestLoadRoots: which files are read, as what, and what is said of them.
func TestLoadRoots(t *testing.T) {
	maker, stranger := newMaker(t), newMaker(t)
	link := issuer(t, maker, "Example TPM maker, issuing CA", nil)
	lost := issuer(t, stranger, "Stranger CA", nil)
	expired := issuer(t, maker, "expired CA", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	noCA := issuer(t, maker, "no CA", func(c *x509.Certificate) { c.IsCA = false })
	root, linkPEM := certificatePEM(maker.Root), certificatePEM(link.Root)
	list := listed(t, maker, nil, 5)
	listPEM := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list})
	damagedList := bytes.Clone(list)
	damagedList[len(damagedList)-1] ^= 1
	type files = map[string][]byte
	cases := map[string]struct {
		anchors, links files
		err            string   // of LoadRoots
		findings       []string // parts of each, in order
		bad            string   // of a certificate of the root with the serial number 5
		ofLink         string   // of a certificate of the link
	}{
		"PEM":                      {files{"root.pem": root}, nil, "", nil, "", "nothing among anchors and links"},
		"DER":                      {files{"root.der": maker.Root.Raw}, nil, "", nil, "", "nothing among anchors and links"},
		"capitals":                 {files{"ROOT.CRT": root}, nil, "", nil, "", "nothing among anchors and links"},
		"several in a file":        {files{"all.crt": append(bytes.Clone(root), linkPEM...)}, nil, "", nil, "", ""},
		"with a link":              {files{"root.pem": root}, files{"link.cer": linkPEM}, "", nil, "", ""},
		"with a PEM list":          {files{"root.cer": root, "list.crl": listPEM}, nil, "", nil, "revoked", "nothing among"},
		"with a DER list":          {files{"root.cer": root, "list.crl": list}, nil, "", nil, "revoked", "nothing among"},
		"list among the links":     {files{"root.cer": root}, files{"list.crl": list}, "", nil, "revoked", "nothing among"},
		"list in capitals":         {files{"root.cer": root, "LIST.CRL": list}, nil, "", nil, "revoked", "nothing among"},
		"list with another ending": {files{"root.cer": root, "list.der": list}, nil, "", nil, "revoked", "nothing among"},
		"list and root in a file":  {files{"all.pem": append(bytes.Clone(root), listPEM...)}, nil, "", nil, "revoked", "nothing among"},

		"a README beside":        {files{"root.pem": root, "README": []byte("x")}, nil, "", []string{"README: is left alone"}, "", "nothing among"},
		"a damaged anchor":       {files{"root.pem": root, "other.pem": []byte("x")}, nil, "", []string{"other.pem: is of no use: "}, "", "nothing among"},
		"a damaged link":         {files{"root.pem": root}, files{"bad.crt": linkPEM[:100], "good.crt": linkPEM}, "", []string{"bad.crt: is of no use: "}, "", ""},
		"a damaged one in PEM":   {files{"root.pem": append(bytes.Clone(root), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})...)}, nil, "", []string{"root.pem: is of no use: PEM block 2, CERTIFICATE"}, "", "nothing among"},
		"a key in PEM":           {files{"root.pem": append(bytes.Clone(root), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})...)}, nil, "", []string{"PEM block 2, PUBLIC KEY"}, "", "nothing among"},
		"a link that leads away": {files{"root.pem": root}, files{"lost.pem": certificatePEM(lost.Root), "link.pem": linkPEM}, "", []string{`lost.pem: "CN=Stranger CA" is of no use: leads to no trusted maker`}, "", ""},
		"an expired link":        {files{"root.pem": root}, files{"old.pem": certificatePEM(expired.Root)}, "", []string{`old.pem: "CN=expired CA" is of no use: x509: certificate has expired`}, "", "nothing among"},
		"an expired anchor":      {files{"root.pem": root, "old.pem": certificatePEM(expired.Root)}, nil, "", []string{`old.pem: "CN=expired CA" is of no use: it is valid from`}, "", "nothing among"},
		"an anchor that is none": {files{"root.pem": root, "noca.pem": certificatePEM(noCA.Root)}, nil, "", []string{`noca.pem: "CN=no CA" is of no use: it is not that of a CA`}, "", "nothing among"},
		"a link that is none":    {files{"root.pem": root}, files{"noca.pem": certificatePEM(noCA.Root)}, "", []string{`noca.pem: "CN=no CA" is of no use: it is not that of a CA`}, "", "nothing among"},
		"a list out of date": {files{"root.pem": root, "list.crl": listed(t, maker, func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(-time.Second) })}, nil, "",
			[]string{`list.crl: the revocation list of CN=Example TPM maker\, root CA is out of date`}, "out of date", "nothing among"},

		"empty":                   {nil, nil, "no certificates", nil, "", ""},
		"other files":             {files{"root.txt": root}, nil, "root.txt: is left alone", nil, "", ""},
		"list alone":              {files{"list.crl": list}, nil, "no certificates", nil, "", ""},
		"links alone":             {nil, files{"root.pem": root}, "no certificates", nil, "", ""},
		"damaged alone":           {files{"root.pem": []byte("x")}, nil, "root.pem: is of no use", nil, "", ""},
		"list is none":            {files{"root.pem": root, "list.crl": []byte("x")}, nil, "list.crl: not a revocation list", nil, "", ""},
		"list is a damaged PEM":   {files{"root.pem": root, "list.CRL": listPEM[:200]}, nil, "list.CRL: not a revocation list", nil, "", ""},
		"list with a bad byte":    {files{"root.pem": root, "list.crl": damagedList}, nil, `list.crl: revocation list of CN=Example TPM maker\, root CA cannot be used: its signature does not verify`, nil, "", ""},
		"list of a stranger":      {files{"root.pem": root, "list.crl": listed(t, lost, nil)}, nil, "list.crl: revocation list of CN=Stranger CA cannot be used: no certificate of its issuer", nil, "", ""},
		"list of a namesake":      {files{"root.pem": root, "list.crl": listed(t, stranger, nil)}, nil, "its signature does not verify", nil, "", ""},
		"list in links, bad byte": {files{"root.pem": root}, files{"list.der": damagedList}, "its signature does not verify", nil, "", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			folders := []string{t.TempDir(), t.TempDir()}
			for i, files := range []files{tc.anchors, tc.links} {
				for file, content := range files {
					if err := os.WriteFile(filepath.Join(folders[i], file), content, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			roots, findings, err := evidence.LoadRoots(folders[0], folders[1], time.Now())
			if tc.err != "" {
				if err == nil || roots != nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got %v, want an error with %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(findings) != len(tc.findings) {
				t.Fatalf("findings %q, want %q", findings, tc.findings)
			}
			for i, want := range tc.findings {
				if !strings.Contains(findings[i], want) {
					t.Errorf("finding %q, want %q", findings[i], want)
				}
			}
			for what, got := range map[string]struct {
				maker  *factory.TPMMaker
				serial int64
				want   string
			}{"good": {maker, 4, ""}, "number 5": {maker, 5, tc.bad}, "of the link": {link, 7, tc.ofLink}} {
				if what == "good" && strings.Contains(tc.bad, "out of date") {
					got.want = tc.bad
				}
				ek, der := leaf(t, got.maker, got.serial)
				if reason := enrol(t, evidence.Config{Roots: roots}, ek, der); (got.want == "") != (reason == "") || !strings.Contains(reason, got.want) {
					t.Errorf("certificate %s: %q, want %q", what, reason, got.want)
				}
			}
		})
	}
	if len(cases) != 33 {
		t.Errorf("%d cases, want 33", len(cases))
	}
	if _, _, err := evidence.LoadRoots(filepath.Join(t.TempDir(), "missing"), "", time.Now()); err == nil {
		t.Error("no folder, no error")
	}
	if _, _, err := evidence.LoadRoots(t.TempDir(), filepath.Join(t.TempDir(), "missing"), time.Now()); err == nil {
		t.Error("no folder of links, no error")
	}
}
