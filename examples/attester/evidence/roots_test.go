// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
)

// roots are those with the given anchors.
func roots(t testing.TB, anchors ...*x509.Certificate) *evidence.Roots {
	t.Helper()
	made, err := evidence.NewRoots(anchors, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func newMaker(t testing.TB) *factory.TPMMaker {
	t.Helper()
	maker, err := factory.NewTPMMaker(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return maker
}

func issuer(t testing.TB, of *factory.TPMMaker, name string, change func(*x509.Certificate)) *factory.TPMMaker {
	t.Helper()
	made, err := of.Issuer(name, change)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// enrol sends an EK with the certificates and returns why it was refused; "" if
// only the attestation key was, which is not there.
func enrol(t testing.TB, cfg evidence.Config, ek []byte, certificates ...[]byte) string {
	t.Helper()
	var err error
	if cfg.CA, err = evidence.CreateCA(time.Now()); err != nil {
		t.Fatal(err)
	}
	verifier, err := evidence.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = verifier.Enrol(evidence.EnrolmentRequest{EK: ek, EKCertificates: certificates})
	if strings.Contains(err.Error(), "public area of the AK") {
		return ""
	}
	return err.Error()
}

// A leaf is the certificate of an endorsement key.
func leaf(t testing.TB, maker *factory.TPMMaker, serial int64) (ek, der []byte) {
	t.Helper()
	key := newKey(t)
	ek, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err = maker.Certify(&key.PublicKey, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(serial) })
	if err != nil {
		t.Fatal(err)
	}
	return ek, der
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// listed makes a revocation list.
func listed(t testing.TB, by *factory.TPMMaker, change func(*x509.RevocationList), serials ...int64) []byte {
	t.Helper()
	now := time.Now()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
	for _, serial := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: now})
	}
	if change != nil {
		change(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, by.Root, by.Key())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// otherSpelling is a name as another program has written it: in UTF8String, where
// Go writes PrintableString, in capitals and with more spaces.
func otherSpelling(t testing.TB, commonName string) []byte {
	t.Helper()
	value := asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(strings.ToUpper(strings.ReplaceAll(commonName, " ", "  ")))}
	raw, err := asn1.Marshal([][]struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue
	}{{{asn1.ObjectIdentifier{2, 5, 4, 3}, value}}})
	if err != nil {
		t.Fatal(err)
	}
	// RelativeDistinguishedName is a SET.
	raw[2] = 0x31
	return raw
}

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

// TestChains: what leads from an endorsement key to an anchor, and what does not.
func TestChains(t *testing.T) {
	maker := newMaker(t)
	first := issuer(t, maker, "first", nil)
	second := issuer(t, first, "second", nil)
	third := issuer(t, second, "third", nil)
	onDie := issuer(t, third, "on the die", nil)
	ek, der := leaf(t, onDie, 1)
	chain := [][]byte{first.Root.Raw, second.Root.Raw, third.Root.Raw, onDie.Root.Raw}

	// The same names, in other spellings than those of the certificates they name.
	spelt := func(m *factory.TPMMaker) *factory.TPMMaker {
		twin, root := *m, *m.Root
		root.RawSubject = otherSpelling(t, m.Root.Subject.CommonName)
		twin.Root = &root
		return &twin
	}
	speltLink := issuer(t, spelt(maker), "spelt", nil)
	speltEK, speltDER := leaf(t, spelt(speltLink), 2)

	noCA := issuer(t, maker, "no CA", func(c *x509.Certificate) { c.IsCA, c.SubjectKeyId = false, []byte{1} })
	noCAEK, noCADER := leaf(t, noCA, 3)
	narrow := issuer(t, maker, "one more only", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	beyond := issuer(t, narrow, "one too many", nil)
	beyondEK, beyondDER := leaf(t, beyond, 4)
	old := issuer(t, maker, "old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	oldEK, oldDER := leaf(t, old, 5)
	stranger := issuer(t, newMaker(t), "first", nil)
	rootEK, rootDER := leaf(t, maker, 6)

	type list = []*x509.Certificate
	cases := map[string]struct {
		anchors, links list
		ek             []byte
		sent           [][]byte
		want           string
	}{
		"links of the device":              {list{maker.Root}, nil, ek, append([][]byte{der}, chain...), ""},
		"the device's, the other way":      {list{maker.Root}, nil, ek, [][]byte{chain[0], chain[3], chain[1], chain[2], der}, ""},
		"links of the operator":            {list{maker.Root}, list{onDie.Root, first.Root, third.Root, second.Root}, ek, [][]byte{der}, ""},
		"some of each":                     {list{maker.Root}, list{first.Root, second.Root}, ek, [][]byte{der, chain[3], chain[2]}, ""},
		"both have all":                    {list{maker.Root}, list{first.Root, second.Root, third.Root, onDie.Root}, ek, append([][]byte{der}, chain...), ""},
		"one is missing":                   {list{maker.Root}, nil, ek, append([][]byte{der}, chain[1:]...), `nothing among anchors and links is the issuer "CN=first" of "CN=second"`},
		"a factory's CA is the anchor":     {list{first.Root}, nil, ek, append([][]byte{der}, chain[1:]...), ""},
		"the CA on the die is the anchor":  {list{onDie.Root}, nil, ek, [][]byte{der}, ""},
		"links alone prove nothing":        {nil, list{maker.Root, first.Root, second.Root, third.Root, onDie.Root}, ek, append([][]byte{der, maker.Root.Raw}, chain...), "nothing among anchors and links"},
		"the device's root proves nothing": {list{newMaker(t).Root}, nil, rootEK, [][]byte{rootDER, maker.Root.Raw}, "unknown authority"},
		"names in other spellings":         {list{maker.Root}, list{speltLink.Root}, speltEK, [][]byte{speltDER}, ""},
		"and from the device":              {list{maker.Root}, nil, speltEK, [][]byte{speltDER, speltLink.Root.Raw}, ""},
		"a namesake of the issuer":         {list{maker.Root}, list{stranger.Root, second.Root, third.Root, onDie.Root}, ek, [][]byte{der}, "unknown authority"},
		"a namesake beside it":             {list{maker.Root}, list{stranger.Root, first.Root, second.Root, third.Root, onDie.Root}, ek, [][]byte{der, stranger.Root.Raw}, ""},
		"a link that is no CA":             {list{maker.Root}, nil, noCAEK, [][]byte{noCADER, noCA.Root.Raw}, "cannot sign this kind"},
		"a path that is too long":          {list{maker.Root}, nil, beyondEK, [][]byte{beyondDER, beyond.Root.Raw, narrow.Root.Raw}, "too many intermediates"},
		"an expired link":                  {list{maker.Root}, nil, oldEK, [][]byte{oldDER, old.Root.Raw}, "has expired"},
		"nonsense before":                  {list{maker.Root}, nil, rootEK, [][]byte{[]byte("x"), rootDER}, ""},
		"nonsense after":                   {list{maker.Root}, nil, rootEK, [][]byte{rootDER, []byte("x")}, ""},
		"nonsense alone":                   {list{maker.Root}, nil, rootEK, [][]byte{[]byte("x")}, "certificate 1 cannot be read"},
		"a bad one of the EK before":       {list{maker.Root}, nil, rootEK, [][]byte{certifyAnew(t, newMaker(t), rootEK), rootDER}, ""},
		"another EK's alone":               {list{maker.Root}, nil, rootEK, [][]byte{oldDER}, "no EK certificate is for ek"},
		"none":                             {list{maker.Root}, nil, rootEK, nil, "no EK certificate, and the registry"},
		"17":                               {list{maker.Root}, nil, rootEK, append([][]byte{rootDER}, make([][]byte, 16)...), "17 EK certificates, and 16 are the most"},
	}
	for name, tc := range cases {
		made, err := evidence.NewRoots(tc.anchors, tc.links, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := enrol(t, evidence.Config{Roots: made}, tc.ek, tc.sent...); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	if len(cases) != 24 {
		t.Errorf("%d cases, want 24", len(cases))
	}
}

// TestOAEPKey: older certificates say that the key is for RSAES-OAEP alone.
func TestOAEPKey(t *testing.T) {
	maker := newMaker(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ek, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	der := certifyAnew(t, maker, ek)
	var certificate struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &certificate); err != nil {
		t.Fatal(err)
	}
	certificate.TBS.FullBytes = bytes.Replace(certificate.TBS.FullBytes,
		[]byte("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"), []byte("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07"), 1)
	digest := sha256.Sum256(certificate.TBS.FullBytes)
	if certificate.Signature.Bytes, err = maker.Key().Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	certificate.Signature.BitLength = 8 * len(certificate.Signature.Bytes)
	if der, err = asn1.Marshal(certificate); err != nil {
		t.Fatal(err)
	}
	if parsed, err := x509.ParseCertificate(der); err != nil || parsed.PublicKey != nil {
		t.Fatalf("Go reads such keys: %v", err)
	}
	if got := enrol(t, evidence.Config{Roots: roots(t, maker.Root)}, ek, der); got != "" {
		t.Error(got)
	}
}

// certifyAnew has another maker certify an EK.
func certifyAnew(t testing.TB, maker *factory.TPMMaker, ek []byte) []byte {
	t.Helper()
	key, err := x509.ParsePKIXPublicKey(ek)
	if err != nil {
		t.Fatal(err)
	}
	der, err := maker.Certify(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestRevocationLists: whom a list is about, and lists that cannot be used.
func TestRevocationLists(t *testing.T) {
	maker := newMaker(t)
	onDie := issuer(t, maker, "on the die", nil)
	other := issuer(t, maker, "another CA", nil)
	critical := func(id ...int) []pkix.Extension {
		return []pkix.Extension{{Id: id, Critical: true, Value: []byte{0x30, 0}}}
	}
	point := func(value ...byte) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: []int{2, 5, 29, 28}, Critical: true, Value: append([]byte{0x30, byte(len(value))}, value...)})
		}
	}
	// indirect lists say whose certificate it is that an entry is about.
	indirect := func(of *x509.Certificate, then func(*x509.RevocationList)) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			point(0x84, 1, 0xff)(l)
			name := append([]byte{0xa4, byte(len(of.RawSubject))}, of.RawSubject...)
			l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{
				Id: []int{2, 5, 29, 29}, Critical: true, Value: append([]byte{0x30, byte(len(name))}, name...),
			}}
			if then != nil {
				then(l)
			}
		}
	}
	outOfDate := func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(-time.Second) }
	cases := map[string]struct {
		by      *factory.TPMMaker
		change  func(*x509.RevocationList)
		serials []int64
		err     string // of NewRoots
		want    string // of number 5 of the CA on the die
	}{
		"its issuer's":                  {onDie, nil, []int64{4, 5, 6}, "", "the certificate 5 of"},
		"others are in it":              {onDie, nil, []int64{4, 6}, "", ""},
		"its issuer's, out of date":     {onDie, outOfDate, nil, "", "out of date"},
		"out of date, and it is in it":  {onDie, outOfDate, []int64{5}, "", "has been revoked"},
		"another CA's":                  {other, nil, []int64{5}, "", ""},
		"another CA's, out of date":     {other, outOfDate, nil, "", ""},
		"the root's, of its own":        {maker, nil, []int64{5}, "", ""},
		"the root's, with the link":     {maker, nil, []int64{onDie.Root.SerialNumber.Int64()}, "", ""},
		"users alone":                   {onDie, point(0x81, 1, 0xff), []int64{5}, "", "has been revoked"},
		"indirect":                      {maker, indirect(onDie.Root, nil), []int64{5}, "", "has been revoked"},
		"indirect, and the next entry":  {maker, indirect(onDie.Root, nil), []int64{4, 5}, "", "has been revoked"},
		"indirect, about another":       {maker, indirect(other.Root, nil), []int64{5}, "", ""},
		"indirect, about itself":        {maker, point(0x84, 1, 0xff), []int64{5}, "", ""},
		"entry names an issuer, direct": {maker, func(l *x509.RevocationList) { indirect(onDie.Root, nil)(l); l.ExtraExtensions = nil }, []int64{5}, "names another issuer", ""},
		"a delta":                       {onDie, func(l *x509.RevocationList) { l.ExtraExtensions = critical(2, 5, 29, 27) }, []int64{5}, "delta list", ""},
		"for some reasons":              {onDie, point(0x83, 2, 0, 0x40), []int64{5}, "some reasons", ""},
		"for attribute certificates":    {onDie, point(0x85, 1, 0xff), []int64{5}, "attribute certificates", ""},
		"distribution point is nonsense": {onDie, func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 28}, Value: []byte("x")}}
		}, nil, "cannot be read", ""},
		"critical and not known":           {onDie, func(l *x509.RevocationList) { l.ExtraExtensions = critical(1, 2, 3) }, nil, "1.2.3, which is not understood", ""},
		"critical and not known, an entry": {onDie, func(l *x509.RevocationList) { l.RevokedCertificateEntries[0].ExtraExtensions = critical(1, 2, 3) }, []int64{4}, "entry 4 has the extension 1.2.3", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			list, err := x509.ParseRevocationList(listed(t, tc.by, tc.change, tc.serials...))
			if err != nil {
				t.Fatal(err)
			}
			made, err := evidence.NewRoots([]*x509.Certificate{maker.Root}, []*x509.Certificate{onDie.Root, other.Root}, []*x509.RevocationList{list})
			if tc.err != "" {
				if err == nil || made != nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got %v, want an error with %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			ek, der := leaf(t, onDie, 5)
			if got := enrol(t, evidence.Config{Roots: made}, ek, der); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
	if len(cases) != 20 {
		t.Errorf("%d cases, want 20", len(cases))
	}

	// Of two makers with one name, each has a list of his own.
	namesake := newMaker(t)
	list, err := x509.ParseRevocationList(listed(t, namesake, nil, 5))
	if err != nil {
		t.Fatal(err)
	}
	made, err := evidence.NewRoots([]*x509.Certificate{maker.Root, namesake.Root}, nil, []*x509.RevocationList{list})
	if err != nil {
		t.Fatal(err)
	}
	for by, want := range map[*factory.TPMMaker]string{maker: "", namesake: "has been revoked"} {
		ek, der := leaf(t, by, 5)
		if got := enrol(t, evidence.Config{Roots: made}, ek, der); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("namesakes: %q, want %q", got, want)
		}
	}
}
