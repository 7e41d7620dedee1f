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
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
)

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
		"a link that is dear to verify":    {list{maker.Root}, nil, ek, [][]byte{der, rsaLink(t, 8192, "on the die")}, "certificate 2 has an RSA key of 8192 bits"},
		"and beside the true one":          {list{maker.Root}, nil, ek, append([][]byte{der, rsaLink(t, 8192, "on the die")}, chain...), ""},
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
	if len(cases) != 26 {
		t.Errorf("%d cases, want 26", len(cases))
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
