// SPDX-License-Identifier: Apache-2.0

package factory_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-attestation/attest"
	ekx509 "github.com/google/go-attestation/x509"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestEndorse: the certificate is in the TPM, for the TPM's key, and what others
// take for an EK certificate.
func TestEndorse(t *testing.T) {
	tpm := tpmtest.Dial(t, tpmtest.Simulator(t))
	maker, err := factory.NewTPMMaker(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := maker.Endorse(tpm)
	if err != nil {
		t.Fatal(err)
	}
	const index = tpm2.TPMHandle(0x01c0000a)
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	area, err := public.NVPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	read, err := tpm2.NVRead{
		AuthHandle: tpm2.AuthHandle{Handle: index, Name: public.NVName, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName}, Size: area.DataSize,
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ekx509.ParseEKCertificate(read.Data.Buffer)
	if err != nil {
		t.Fatal(err)
	}
	if !certificate.HasEkcExtendedKeyUsage || certificate.TpmModel != "Example TPM" || !certificate.PublicKey.(*ecdsa.PublicKey).Equal(key) {
		t.Errorf("certificate %+v", certificate)
	}
	roots := x509.NewCertPool()
	roots.AddCert(maker.Root)
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
	if srk, err := factory.StorageRoot(tpm); err != nil || !srk.ObjectAttributes.Restricted || !srk.ObjectAttributes.Decrypt {
		t.Errorf("storage root key %+v, %v", srk, err)
	}
	tpmtest.NoLeaks(t, tpm)
}

// TestBoot: log, PCRs and reference values agree, and Secure Boot is what the
// firmware says.
func TestBoot(t *testing.T) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vendor"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &signer.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	sim := tpmtest.Simulator(t)
	tpm := tpmtest.Dial(t, sim)
	for _, on := range []bool{true, false} {
		sim.Reset()
		firmware := &factory.Firmware{Version: "1.0", Loader: []byte("loader"), SecureBoot: on, Authority: authority}
		text, err := factory.Boot(tpm, firmware)
		if err != nil {
			t.Fatal(err)
		}
		read, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
			Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(0, 4, 7),
		}}}}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		var pcrs []attest.PCR
		for i, index := range []int{0, 4, 7} {
			value := read.PCRValues.Digests[i].Buffer
			if !bytes.Equal(value, factory.Values(firmware)[index]) {
				t.Errorf("PCR %d is %x", index, value)
			}
			pcrs = append(pcrs, attest.PCR{Index: index, Digest: value, DigestAlg: crypto.SHA256})
		}
		log, err := attest.ParseEventLog(text)
		if err != nil {
			t.Fatal(err)
		}
		events, err := log.Verify(pcrs)
		if err != nil || len(events) != len(firmware.Events()) {
			t.Errorf("%d events, %v", len(events), err)
		}
		state, err := attest.ParseSecurebootState(events)
		if err != nil || state.Enabled != on || on && !state.PostSeparatorAuthority[0].Equal(authority) {
			t.Errorf("Secure Boot %+v, %v", state, err)
		}
	}
}

// TestLogForOthers: tpm2-tools read the boot log as what it is, and compute the PCRs
// from it that the device has.
func TestLogForOthers(t *testing.T) {
	tool, err := exec.LookPath("tpm2_eventlog")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("tpm2-tools are not installed")
	}
	certificate, err := factory.NewTPMMaker(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	firmware := &factory.Firmware{Version: "Firmware 1", Loader: []byte("loader"), SecureBoot: true, Authority: certificate.Root}
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, factory.Log(firmware.Events()), 0o600); err != nil {
		t.Fatal(err)
	}
	var warnings strings.Builder
	cmd := exec.Command(tool, file)
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if err != nil || warnings.Len() > 0 {
		t.Fatalf("%v\n%s", err, &warnings)
	}
	text := string(out)
	for _, want := range []string{
		"UnicodeName: SecureBoot", "UnicodeName: db", "8be4df61-93ca-11d2-aa0d-00e098032b8c", "EV_EFI_BOOT_SERVICES_APPLICATION", "LengthOfDevicePath: 52",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("tpm2_eventlog does not say %s", want)
		}
	}
	_, computed, _ := strings.Cut(text, "\npcrs:\n")
	for pcr, value := range factory.Values(firmware) {
		if want := fmt.Sprintf("%-2d : 0x%s", pcr, hex.EncodeToString(value)); !strings.Contains(strings.ToLower(computed), strings.ToLower(want)) {
			t.Errorf("tpm2_eventlog does not compute %s from it, but\n%s", want, computed)
		}
	}
}
