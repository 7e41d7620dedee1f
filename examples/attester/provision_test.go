// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// listSRK puts the device's storage root key into the registry.
func (w *world) listSRK() {
	w.t.Helper()
	srk, err := factory.StorageRoot(w.d.tpm)
	if err != nil {
		w.t.Fatal(err)
	}
	w.registry["devices"].([]object)[0]["srk"] = base64.StdEncoding.EncodeToString(tpm2.Marshal(*srk))
}

// TestProvision: step (f). The device imports its key and has its attestation;
// the attester never heard of it.
func TestProvision(t *testing.T) {
	sim := tpmtest.Simulator(t)
	w := newWorld(t, tpmtest.Dial(t, sim), (*world).listSRK)
	provisioned, err := w.server.Provision(clientID, w.ek, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, claims := w.open(provisioned.Attestation)
	if claims["sub"] != clientID || claims["hwmodel"] != "R2F0ZXdheSBYMQ" || claims["swname"] != nil || claims["submods"] != nil {
		t.Errorf("claims %v", claims)
	}
	if w.lastRecord()["ek"] != w.ek || strings.Contains(w.log.String(), "TSS2") {
		t.Errorf("logged %v", w.lastRecord())
	}

	store, err := tpm.Open(t.Context(), tpm.Config{TPM: w.d.tpm, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	imported, err := store.Import(t.Context(), "provisioned", provisioned.Key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := (jose.JSONWebKey{Key: imported.Public(), Algorithm: imported.Algorithm()}).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if cnf := claims["cnf"].(object)["jwk"]; !reflect.DeepEqual(string(public), string(rejoin(t, cnf))) {
		t.Errorf("attested %v, imported %s", cnf, public)
	}
	if _, err := imported.Sign(t.Context(), []byte("signing input")); err != nil {
		t.Errorf("the imported key does not sign: %v", err)
	}

	// Each device gets a key of its own, and each time another one.
	again, err := w.server.Provision(clientID, w.ek, time.Hour)
	if err != nil || string(again.Key) == string(provisioned.Key) {
		t.Errorf("the same key again, %v", err)
	}

	// The key is of no use to another device.
	sim.Manufacture()
	elsewhere, err := tpm.Open(t.Context(), tpm.Config{TPM: w.d.tpm, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	if _, err := elsewhere.Import(t.Context(), "provisioned", again.Key); !errors.Is(err, keystore.ErrKeyLost) {
		t.Errorf("another device imported the key: %v", err)
	}
}

// rejoin encodes a JWK as go-jose does.
func rejoin(t *testing.T, jwk any) []byte {
	t.Helper()
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(encodeJSON(t, jwk)); err != nil {
		t.Fatal(err)
	}
	public, err := key.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// TestProvisionedKeyIsNotRenewed: a key that was wrapped for the device has been
// elsewhere, and a request for another attestation for it is refused, though all
// that the TPM says of it is true.
func TestProvisionedKeyIsNotRenewed(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), (*world).listSRK)
	chain := w.enrol()
	provisioned, err := w.server.Provision(clientID, w.ek, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	k := w.importKey(provisioned)
	defer k.flush()
	w.wantRefusal(w.send(w.attempt(k, chain).request()), 400, "key_not_protected", "it was imported")
}

// importKey has the TPM unwrap a key and load it (TPM2_Import, TPM2_Load).
func (w *world) importKey(provisioned *attester.Provisioned) *key {
	w.t.Helper()
	parsed, err := keyfile.Decode(provisioned.Key)
	if err != nil {
		w.t.Fatal(err)
	}
	template := tpm2.ECCSRKTemplate
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	srk := w.d.load(tpm2.TPMRHOwner, template)
	defer srk.flush()
	imported, err := tpm2.Import{
		ParentHandle: srk.auth(), ObjectPublic: parsed.Pubkey, Duplicate: parsed.Privkey, InSymSeed: parsed.Secret,
		Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
	}.Execute(w.d.tpm)
	if err != nil {
		w.t.Fatal(err)
	}
	loaded, err := tpm2.Load{ParentHandle: srk.auth(), InPrivate: imported.OutPrivate, InPublic: parsed.Pubkey}.Execute(w.d.tpm)
	if err != nil {
		w.t.Fatal(err)
	}
	area, err := parsed.Pubkey.Contents()
	if err != nil {
		w.t.Fatal(err)
	}
	public, err := tpm2.Pub(*area)
	if err != nil {
		w.t.Fatal(err)
	}
	return &key{d: w.d, handle: loaded.ObjectHandle, name: loaded.Name, area: tpm2.Marshal(*area), public: public}
}

func TestProvisionRefuses(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	lifetime := time.Hour
	refused := func(name, client, ek, want string) {
		t.Helper()
		provisioned, err := w.server.Provision(client, ek, lifetime)
		if err == nil || provisioned != nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "attester: provision: ") {
			t.Errorf("%s: %v, %v", name, provisioned, err)
		}
	}
	refused("SRK not known", clientID, w.ek, "no storage root key")
	w.listSRK()
	w.start()
	refused("client not served", "stranger", w.ek, "not served")
	refused("unknown device", clientID, fingerprintOf("unlisted"), "not in the registry")
	lifetime = 0
	refused("no lifetime", clientID, w.ek, "say how long")
	lifetime = -time.Hour
	refused("negative lifetime", clientID, w.ek, "shorter")
	lifetime = time.Hour
	w.registry["blocked"] = []string{w.ek}
	w.start()
	refused("blocked device", clientID, w.ek, "blocked")
	w.configure(nil)
	refused("no evidence", clientID, w.ek, "knows no devices")
}
