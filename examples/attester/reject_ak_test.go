// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"
	"time"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestRejectAK: who vouches for the key.
func TestRejectAK(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), func(w *world) { w.reference = nil })
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	forged := func(change func(*x509.Certificate)) func(*attempt) {
		return func(a *attempt) { a.forge(w.newForger(change), &forgery{}) }
	}
	x5c := func(chain ...[]byte) func(*attempt) {
		return func(a *attempt) { a.proof.statement["x5c"] = chain }
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	stranger := newKey(t, elliptic.P256())
	foreign := certificate(t, nil, stranger, stranger)

	w.run(t, k, chain, []refusal{
		{"x5c is missing", "ak_not_enrolled", "no x5c", func(a *attempt) { delete(a.proof.statement, "x5c") }},
		{"x5c is empty", "ak_not_enrolled", "no x5c", x5c()},
		{"x5c is no certificate", "ak_not_enrolled", "malformed", x5c([]byte("not DER"))},
		{"x5c is an empty certificate", "ak_not_enrolled", "malformed", x5c([]byte{})},
		{"chain is upside down", "ak_not_enrolled", "certificate of the AK", x5c(chain[1], chain[0])},
		{"foreign CA", "ak_not_enrolled", "not issued here", func(a *attempt) {
			f := w.newForger(nil)
			f.chain = [][]byte{w.akCertificate(&f.ak.PublicKey, foreign, stranger, nil), foreign.Raw}
			a.forge(f, &forgery{})
		}},
		{"foreign CA, with the own one behind it", "ak_not_enrolled", "not issued here", func(a *attempt) {
			f := w.newForger(nil)
			f.chain = [][]byte{w.akCertificate(&f.ak.PublicKey, foreign, stranger, nil), chain[0], chain[1]}
			a.forge(f, &forgery{})
		}},
		{"AK certificate of another device", "invalid_evidence", "does not verify", x5c(w.newForger(nil).chain...)},
		{"expired", "ak_not_enrolled", "is valid from", forged(func(c *x509.Certificate) { c.NotAfter = w.now.Add(-time.Second) })},
		{"not yet valid", "ak_not_enrolled", "is valid from", forged(func(c *x509.Certificate) { c.NotBefore = w.now.Add(time.Second) })},
		{"no extended key usage", "ak_not_enrolled", "not for an attestation key", forged(func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil })},
		{"certificate of a CA", "ak_not_enrolled", "not for an attestation key", forged(func(c *x509.Certificate) { c.IsCA = true })},
		{"certificate names no EK", "ak_not_enrolled", "does not name the EK", forged(func(c *x509.Certificate) { c.ExtraExtensions = nil })},
		{"certificate names something else", "ak_not_enrolled", "does not name the EK", forged(func(c *x509.Certificate) {
			c.ExtraExtensions[0] = w.akName("device 5")
		})},
		{"certificate says not why", "ak_not_enrolled", "does not say whose word was taken", forged(func(c *x509.Certificate) { c.ExtraExtensions = c.ExtraExtensions[:1] })},
		{"certificate says why in another form", "ak_not_enrolled", "does not say whose word was taken", forged(func(c *x509.Certificate) { c.ExtraExtensions[1].Value = []byte("x") })},
		{"key is RSA, alg ECDSA", "invalid_evidence", "alg of the statement is -7, and the AK's is -257", func(a *attempt) {
			f := w.newForger(nil)
			f.chain = [][]byte{w.akCertificate(&rsaKey.PublicKey, w.ca.Certificate(), w.ca.Key(), nil)}
			a.forge(f, &forgery{})
		}},
		{"not in the registry any more", "untrusted_tpm", "not in the registry", forged(func(c *x509.Certificate) {
			c.ExtraExtensions[0] = w.akName(fingerprintOf("unlisted"))
		})},
		{"x5c bomb", "invalid_evidence", "x5c has 16 certificates", func(a *attempt) {
			long := make([][]byte, 16)
			for i := range long {
				long[i] = chain[0]
			}
			a.proof.statement["x5c"] = long
		}},
		{"x5c of more elements than are read", "invalid_evidence", "exceeded max number of elements", x5c(make([][]byte, 17)...)},
	}, 20)

	// Blocked after it had enrolled.
	w.registry["blocked"] = []string{w.ek}
	w.start()
	w.wantRefusal(w.send(w.attempt(k, chain).request()), 400, "untrusted_tpm", "blocked")
	if w.lastRecord()["ek"] != w.ek {
		t.Errorf("logged %v: who?", w.lastRecord())
	}
}

// TestAKCertificate: after 30 days the device has to enrol anew.
func TestAKCertificate(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > 30*24*time.Hour {
		t.Errorf("valid for %v", life)
	}
	if len(leaf.Subject.Names) != 0 || leaf.IsCA || !leaf.BasicConstraintsValid || leaf.Version != 3 ||
		len(leaf.UnknownExtKeyUsage) != 1 || leaf.UnknownExtKeyUsage[0].String() != "2.23.133.8.3" {
		t.Errorf("certificate %+v", leaf)
	}
	w.now = leaf.NotAfter
	w.wantAttestation(w.send(w.attempt(k, chain).request()))
	w.now = leaf.NotAfter.Add(time.Second)
	w.wantRefusal(w.send(w.attempt(k, chain).request()), 400, "ak_not_enrolled", "is valid from")
	w.wantAttestation(w.send(w.attempt(k, w.enrol()).request()))
}
