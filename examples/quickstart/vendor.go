// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
)

// A vendor makes gateways: simulated hardware, with TPMs in it, and the firmware
// for it. What it knows of both is what the Client Attester goes by.
type vendor struct {
	tpms      *factory.TPMMaker
	authority *x509.Certificate // signs the loaders that Secure Boot accepts
	now       func() time.Time
}

// Hardware models. The Private Enterprise Number is the one for examples (RFC
// 5612).
const (
	oemID   = 32473
	modelX1 = "Gateway X1"
	modelX0 = "Gateway X0"
)

// releases are the versions of the vendor's software, and what it thinks of each.
var releases = []struct {
	version string
	verdict evidence.Status
}{
	{"1.0", evidence.Warning}, // superseded
	{"2.0", evidence.Affirming},
	{"2.1", evidence.Contraindicated}, // recalled
}

const (
	softwareName = "gateway-os"
	current      = "2.0" // the version that devices should run
)

func newVendor(now func() time.Time) (*vendor, error) {
	tpms, err := factory.NewTPMMaker(now())
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "Example gateway vendor, Secure Boot"},
		NotBefore:    now().AddDate(-1, 0, 0),
		NotAfter:     now().AddDate(20, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	authority, err := x509.ParseCertificate(der)
	return &vendor{tpms, authority, now}, err
}

// A device is one of the vendor's gateways.
type device struct {
	vendor     *vendor
	model      string
	version    string // of its software
	secureBoot bool

	ek string // fingerprint of its endorsement key, once it was switched on
}

// boot is for storeflag.Flags: it is called whenever the device is switched on.
// The simulated TPM has lost its memory then, and the vendor puts back what it
// came with: the endorsement certificate. Then the firmware boots and measures
// what it boots.
func (d *device) boot(tpm transport.TPM) (log []byte, err error) {
	ek, err := d.vendor.tpms.Endorse(tpm)
	if err != nil {
		return nil, err
	}
	if d.ek, err = fingerprint(ek); err != nil {
		return nil, err
	}
	return factory.Boot(tpm, d.vendor.firmware(d.version, d.secureBoot))
}

func (v *vendor) firmware(version string, secureBoot bool) *factory.Firmware {
	return &factory.Firmware{
		Version:    "Gateway firmware " + version,
		Loader:     []byte("loader of " + softwareName + " " + version),
		SecureBoot: secureBoot,
		Authority:  v.authority,
	}
}

// fingerprint is how the attester's registry calls an endorsement key.
func fingerprint(ek crypto.PublicKey) (string, error) {
	info, err := x509.MarshalPKIXPublicKey(ek)
	if err != nil {
		return "", err
	}
	return hexDigest(info), nil
}

func hexDigest(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

// verifier returns the attester's evidence verifier, who has been told of these
// devices and of all releases. The devices must have been switched on.
func (v *vendor) verifier(devices ...*device) (*evidence.Verifier, error) {
	registry, err := parsed(evidence.ParseRegistry, v.registry(devices))
	if err != nil {
		return nil, err
	}
	reference, err := parsed(evidence.ParseReference, v.reference())
	if err != nil {
		return nil, err
	}
	return v.newVerifier(registry, reference)
}

// newVerifier makes a verifier that trusts the TPMs of this vendor.
func (v *vendor) newVerifier(registry *evidence.Registry, reference *evidence.Reference) (*evidence.Verifier, error) {
	ca, err := evidence.CreateCA(v.now())
	if err != nil {
		return nil, err
	}
	roots, err := evidence.NewRoots([]*x509.Certificate{v.tpms.Root}, nil, nil)
	if err != nil {
		return nil, err
	}
	return evidence.New(evidence.Config{
		Roots:     roots,
		CA:        ca,
		Registry:  registry,
		Reference: reference,
		Now:       v.now,
	})
}

// object is JSON in the making, of the files that an attester's operator writes.
type object map[string]any

func parsed[T any](parse func([]byte) (T, error), file object) (none T, err error) {
	text, err := json.Marshal(file)
	if err != nil {
		return none, err
	}
	return parse(text)
}

// registry says which TPM is in which device.
func (v *vendor) registry(devices []*device) object {
	listed := []object{}
	for _, d := range devices {
		listed = append(listed, object{"ek": d.ek, "model": d.model})
	}
	return object{
		"models": object{
			modelX1: object{"oemid": oemID, "hwmodel": modelX1, "hwversion": "B"},
			modelX0: object{"oemid": oemID, "hwmodel": modelX0},
		},
		"devices": listed,
	}
}

// reference says how to recognize each release by what was measured. The
// attester attests what it finds, good or bad: it is for the authorization
// server to decide who gets tokens.
func (v *vendor) reference() object {
	separator := hexDigest(make([]byte, 4))
	software := []object{}
	for _, r := range slices.Backward(releases) {
		loader := hexDigest(v.firmware(r.version, true).Loader)
		software = append(software, object{
			"swname": softwareName, "swversion": r.version, "verdict": r.verdict,
			"first_events": object{"4": []string{separator, loader}},
		})
	}
	return object{
		"policy":                     fmt.Sprintf("tag:example.com,%d:gateway", v.now().Year()),
		"pcrs":                       []int{0, 4, 7},
		"software":                   software,
		"secure_boot_authorities":    []string{hexDigest(v.authority.Raw)},
		"attest_without_secure_boot": true,
	}
}
