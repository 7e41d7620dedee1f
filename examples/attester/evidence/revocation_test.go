// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
)

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
