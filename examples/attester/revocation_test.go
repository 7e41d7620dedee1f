// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto"
	"crypto/x509"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestRevocationReachesEnrolled: whatever would keep a TPM from enrolling keeps one
// that has enrolled from the next attestation, at once, and until it is taken back.
func TestRevocationReachesEnrolled(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	link, err := w.d.maker.Issuer("link", func(c *x509.Certificate) { c.SerialNumber = big.NewInt(70) })
	if err != nil {
		t.Fatal(err)
	}
	root := w.d.maker
	w.d.maker = link
	ek := withKey(w.d.ek(), func(k *key) crypto.PublicKey { return k.public })
	if w.d.ekDER, err = link.Certify(ek, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) }); err != nil {
		t.Fatal(err)
	}
	w.links = []*x509.Certificate{link.Root}
	w.start()
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	attest := func() int { return w.send(w.attempt(k, chain).request()).Code }
	if attest() != 200 {
		t.Fatalf("logged %v", w.lastRecord())
	}
	stranger, err := factory.NewTPMMaker(w.now)
	if err != nil {
		t.Fatal(err)
	}
	list := func(by *factory.TPMMaker, serial int64, validFor time.Duration) func() {
		return func() {
			maker := w.d.maker
			w.d.maker = by
			w.revoke(serial, validFor)
			w.d.maker = maker
		}
	}
	roots, links, registry := w.roots, w.links, w.registry
	cases := map[string]struct {
		change func()
		reason string
	}{
		"EK certificate revoked":      {list(link, 7, time.Hour), "the certificate 7 of \"CN=link\" has been revoked"},
		"link revoked":                {list(root, 70, time.Hour), "the certificate 70 of"},
		"list of the link too old":    {list(link, 8, -time.Second), "that of CN=link is out of date"},
		"list of the root too old":    {list(root, 8, -time.Second), "is out of date"},
		"maker not trusted any more":  {func() { w.roots = []*x509.Certificate{stranger.Root} }, "nothing among anchors and links is the issuer"},
		"link is gone":                {func() { w.links = nil }, "nothing among anchors and links is the issuer \"CN=link\""},
		"blocked":                     {func() { w.registry["blocked"] = []string{w.ek} }, "TPM is blocked"},
		"not in the registry":         {func() { w.registry["devices"] = nil }, "not in the registry"},
		"EK certificate has expired":  {func() { w.now = w.now.AddDate(21, 0, 0) }, ""}, // as the AK's has
		"a list of others":            {list(link, 8, time.Hour), "good"},
		"a list of another number 70": {list(link, 70, time.Hour), "good"},
	}
	good, now := 0, w.now
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w.t, w.d.t = t, t
			w.registry, w.crls = clone(registry), nil
			tc.change()
			w.start()
			switch tc.reason {
			case "good":
				if code := attest(); code != 200 {
					t.Errorf("%d, logged %v", code, w.lastRecord())
				}
			case "":
				if code := attest(); code != 400 {
					t.Errorf("%d, want 400", code)
				}
			default:
				w.wantRefusal(w.send(w.attempt(k, chain).request()), http.StatusBadRequest, "untrusted_tpm", tc.reason)
			}
			// Taken back.
			w.roots, w.links, w.registry, w.crls, w.now = roots, links, registry, nil, now
			w.start()
			if code := attest(); code == 200 {
				good++
			}
		})
	}
	w.t, w.d.t = t, t
	if good != 11 {
		t.Errorf("%d of 11 times an attestation afterwards", good)
	}
}

// TestUpdate: what was begun goes on with what was there then, and everything
// after with what is there now.
func TestUpdate(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	before := w.attempt(k, chain) // its challenge is of before
	roots, err := evidence.NewRoots(w.roots, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	registry := clone(w.registry)
	registry["blocked"] = []string{w.ek}
	blocked, err := evidence.ParseRegistry(encodeJSON(t, registry))
	if err != nil {
		t.Fatal(err)
	}
	w.running.Update(roots, blocked, nil)
	w.wantRefusal(w.send(before.request()), http.StatusBadRequest, "untrusted_tpm", "blocked")
	w.running.Update(roots, nil, nil)
	if _, pcrs := w.wants(); len(pcrs) != 0 {
		t.Errorf("PCRs %v are asked for, and there is no reference any more", pcrs)
	}
	_, claims := w.open(w.wantAttestation(w.send(w.attempt(k, chain).request())))
	if claims["hwmodel"] != nil || claims["submods"] != nil {
		t.Errorf("claims %v", claims)
	}
}

// TestUncertifiedTPM: a TPM without a certificate is welcome if the registry has
// its EK, for a model of which the operator says that its TPMs may come without.
// Its attestations and the log say that nobody but the operator vouches for it.
func TestUncertifiedTPM(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	k := w.instanceKey()
	defer k.flush()
	certified := w.registry
	optional := clone(certified)
	optional["models"] = object{
		"x1": object{"oemid": 32473, "hwmodel": "Gateway X1", "ek_certificate": "optional"},
		"x2": object{"hwmodel": "Gateway X2", "ek_certificate": "required"},
	}
	with := func(change func(object)) object {
		registry := clone(optional)
		change(registry)
		return registry
	}
	w.revoke(7, time.Hour)
	lists := w.crls
	der := func(change func(*x509.Certificate)) [][]byte {
		ek := withKey(w.d.ek(), func(k *key) crypto.PublicKey { return k.public })
		der, err := w.d.maker.Certify(ek, change)
		if err != nil {
			t.Fatal(err)
		}
		return [][]byte{der}
	}
	stranger, err := factory.NewTPMMaker(w.now)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := stranger.Certify(withKey(w.d.ek(), func(k *key) crypto.PublicKey { return k.public }), nil)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		registry     object
		certificates [][]byte
		by           string // tpm_endorsement
		refused      string
	}{
		"listed, optional":           {optional, nil, "registry", ""},
		"and has a good one":         {optional, der(nil), "certificate", ""},
		"and has a stranger's":       {optional, [][]byte{foreign}, "registry", ""},
		"and has nonsense":           {optional, [][]byte{[]byte("x")}, "registry", ""},
		"and has a revoked one":      {optional, der(func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) }), "", "has been revoked"},
		"listed, required":           {with(func(o object) { o["devices"] = []object{{"ek": w.ek, "model": "x2"}} }), nil, "", "no EK certificate"},
		"listed, required unsaid":    {certified, nil, "", "no EK certificate"},
		"not listed":                 {with(func(o object) { o["devices"] = nil }), nil, "", "no EK certificate"},
		"not listed, all welcome":    {with(func(o object) { o["devices"] = nil; o["attest_unlisted_devices"] = true }), nil, "", "no EK certificate"},
		"not listed, one of its own": {with(func(o object) { o["devices"] = nil; o["attest_unlisted_devices"] = true }), der(nil), "certificate", ""},
		"blocked":                    {with(func(o object) { o["blocked"] = []string{w.ek} }), nil, "", "blocked"},
		"no registry":                {nil, nil, "", "no EK certificate"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w.t, w.d.t = t, t
			w.registry, w.crls = tc.registry, lists
			w.start()
			enrolment := w.d.enrolment()
			enrolment["ekCerts"] = tc.certificates
			first := w.postJSON("/tpm/attest", enrolment)
			if tc.refused != "" {
				w.wantRefusal(first, http.StatusBadRequest, "untrusted_tpm", tc.refused)
				return
			}
			chain := w.finish(first)
			_, claims := w.open(w.wantAttestation(w.send(w.attempt(k, chain).request())))
			vector := claims["submods"].(object)["platform"].(object)["ear_trustworthiness_vector"].(object)
			if genuine := vector["hardware"] != nil; claims["tpm_endorsement"] != tc.by || genuine != (tc.by == "certificate") {
				t.Errorf("tpm_endorsement %v, vector %v", claims["tpm_endorsement"], vector)
			}
			if record := w.lastRecord(); record["tpm_endorsement"] != tc.by || record["ek"] != w.ek {
				t.Errorf("logged %v", record)
			}

			// Taken back, for one that has enrolled.
			w.registry = certified
			w.start()
			answer := w.send(w.attempt(k, chain).request())
			if tc.by == "registry" {
				w.wantRefusal(answer, http.StatusBadRequest, "untrusted_tpm", "the registry does not vouch for it any more")
			} else {
				w.wantAttestation(answer)
			}
		})
	}
	if len(cases) != 12 {
		t.Errorf("%d cases, want 12", len(cases))
	}
	// Without the certificate, and without the TPM: the secret is not to be had.
	w.t, w.d.t, w.registry, w.crls = t, t, optional, nil
	w.start()
	enrolment := w.d.enrolment()
	delete(enrolment, "ekCerts")
	answer := body(t, w.postJSON("/tpm/attest", enrolment))
	w.wantRefusal(w.postJSON("/tpm/secret", object{"session": answer["session"], "secret": make([]byte, 32)}), 400, "activation_failed", "wrong secret")
	if _, err := w.d.activate(eccKey(attributesOfAK, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, "other"), w.bytes(answer, "credential"), w.bytes(answer, "secret")); err == nil {
		t.Error("another AK can have the secret")
	}
}
