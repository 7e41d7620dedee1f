// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

var tpmChecks = []string{
	"device", "permission", "in use", "resource manager", "TPM", "lockout", "owner hierarchy", "storage root key",
	"endorsement hierarchy", "EK certificates", "room", "PCR banks", "TPM clock",
}

func TestDoctorHealthy(t *testing.T) {
	eachTPM(t, func(t *testing.T, s *served) {
		d := examined(t, "-store", s.store)
		if want := append(slices.Clone(tpmChecks), "system clock"); !slices.Equal(d.checks(), want) {
			t.Errorf("checked %q\nwant    %q", d.checks(), want)
		}
		d.failed()
		d.want("TPM", statusOK, "firmware", "2.0 revision 1.")
		d.want("lockout", statusOK, "0 of 3 failures", "16m40s")
		d.want("storage root key", statusOK, "Name 000b", "nothing at 0x81000001")
		d.want("EK certificates", statusWarn, "has none")
		d.want("PCR banks", statusOK, "SHA-256")
		sharing := "one program at a time"
		if strings.HasSuffix(t.Name(), "manager") {
			sharing = "programs share the TPM"
		}
		d.want("resource manager", statusOK, sharing)

		s.calls.Reset()
		instancectl(t, "doctor", "-store", s.store)
		s.calls.Want(t,
			tpm2.TPMCCGetCapability,                                                   // is it in use?
			tpm2.TPMCCGetCapability, tpm2.TPMCCGetCapability, tpm2.TPMCCGetCapability, // what a killed program has left
			tpm2.TPMCCGetCapability, tpm2.TPMCCGetCapability, tpm2.TPMCCGetCapability, tpm2.TPMCCReadClock, tpm2.TPMCCGetCapability,
			tpm2.TPMCCReadPublic, tpm2.TPMCCCreatePrimary, tpm2.TPMCCFlushContext)
	})
}

// A TPM that nobody has started yet.
func TestDoctorNotStarted(t *testing.T) {
	s := serve(t, tpmtest.SWTPM(t, tpmtest.SWConfig{NotStarted: true}))
	examined(t, "-store", s.store).failed()
}

// tryPIN signs with a wrong PIN, so many times.
func tryPIN(t *testing.T, s *served, keys, name string, times int) {
	t.Helper()
	s.with(t, func(conn transport.TPM) {
		store, err := tpm.Open(t.Context(), tpm.Config{TPM: conn, Dir: keys, PIN: func(context.Context, string) ([]byte, error) {
			return []byte(rand.Text()), nil // none is tried twice
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		key, err := store.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for range times {
			if _, err := key.Sign(t.Context(), nil); err == nil {
				t.Fatal("the wrong PIN is right")
			}
		}
	})
}

func TestDoctorLockout(t *testing.T) {
	eachTPM(t, func(t *testing.T, s *served) {
		keys := filepath.Join(t.TempDir(), "keys")
		args := []string{"-store", s.store, "-keys", keys}
		pin := writeFile(t, "pin", "1234")
		ok(t, append([]string{"key", "create", "-name", "pin", "-pin-file", pin}, args...)...)
		ok(t, append([]string{"key", "create", "-name", "plain"}, args...)...)

		tryPIN(t, s, keys, "pin", 1)
		d := examined(t, args...)
		d.failed()
		d.want("lockout", statusWarn, "not active: 1 of 3 failures", "wrong PINs")

		tryPIN(t, s, keys, "pin", 2)
		d = examined(t, args...)
		d.failed("lockout")
		d.want("lockout", statusFail, "3 of 3 failures", "up to 16m40s", "tpm2_dictionarylockout --clear-lockout")
		d.want("lockout", statusFail, "keys without noDA (with a PIN, or made by other programs)", "cuts the power")
		d.want("key pin", statusWarn, "with a PIN", "see lockout")
		d.want("key plain", statusOK, "signs")
	})
}

func TestDoctorKeys(t *testing.T) {
	sim := tpmtest.Simulator(t)
	s := serve(t, sim)
	keys := filepath.Join(t.TempDir(), "keys")
	args := []string{"-store", s.store, "-keys", keys}
	create := func(name string, more ...string) {
		ok(t, append(append([]string{"key", "create", "-name", name}, args...), more...)...)
	}

	d := examined(t, args...)
	d.failed()
	d.want("key folder", statusWarn, keys+" is not there")
	if _, err := os.Stat(keys); !os.IsNotExist(err) {
		t.Fatalf("the doctor has made the folder: %v", err)
	}

	create("lost")
	sim.Manufacture()
	create("plain")
	create("pin", "-pin-file", writeFile(t, "pin", "1234"))
	create("boot", "-pcrs", "16")
	create("big", "-alg", "ES384")
	create("readable")
	for name, content := range map[string]string{"torn.pem": "-----BEGIN TSS2", "empty.pem": "", "no-key.txt": "x"} {
		if err := os.WriteFile(filepath.Join(keys, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	beside, err := os.OpenFile(filepath.Join(keys, "plain.pem"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = beside.WriteString("-----BEGIN CERTIFICATE-----\nMIIB"); err == nil {
		err = beside.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(keys, "readable.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	d = examined(t, args...)
	d.failed("key empty", "key lost", "key readable", "key torn")
	d.want("key folder", statusOK, "has 8 keys")
	d.want("key plain", statusOK, "ES256; signs")
	d.want("key plain file", statusWarn, "the key, which is whole", "CERTIFICATE", "restore it")
	d.want("key big", statusOK, "ES384; signs")
	d.want("key boot", statusOK, "PCRs 16", "signs")
	d.want("key pin", statusOK, "with a PIN", "no PIN was tried")
	d.want("key lost", statusFail, "lost for good")
	d.want("key torn", statusFail, "restore the file")
	d.want("key empty", statusFail, "restore the file")
	d.want("key readable", statusFail, "chmod go=")

	tpmtest.ExtendPCR(t, sim, 16, "another firmware")
	d = examined(t, args...)
	d.failed("key boot", "key empty", "key lost", "key readable", "key torn")
	d.want("key boot", statusFail, "boot what the key is bound to")
	if failures := lockoutCounter(t, sim); failures != 0 {
		t.Errorf("the doctor has made %d wrong tries", failures)
	}

	if err := os.Chmod(keys, 0o777); err != nil {
		t.Fatal(err)
	}
	d = examined(t, args...)
	d.failed("key folder")
	d.want("key folder", statusFail, "chmod go= "+keys)
	d.want("storage root key", statusOK)

	if err := os.Chmod(keys, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(keys, "no-key.txt")
	examined(t, "-store", s.store, "-keys", file).failed("key folder")
}

func lockoutCounter(t *testing.T, conn transport.TPM) uint32 {
	t.Helper()
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTLockoutCounter), PropertyCount: 1}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	properties, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		t.Fatal(err)
	}
	return properties.TPMProperty[0].Value
}

// The simulator of a key folder is the same from one process to the next.
func TestDoctorSimulator(t *testing.T) {
	exampletest.NeedSimulator(t)
	keys := t.TempDir()
	ok(t, "key", "create", "-name", "k", "-store", "simulator", "-keys", keys)
	d := examined(t, "-store", "simulator", "-keys", keys)
	d.failed()
	d.want("key k", statusOK, "signs")
}

// What goes wrong in the middle.
func TestDoctorBroken(t *testing.T) {
	faults := tpmtest.Inject(t, tpmtest.Simulator(t))
	s := serve(t, faults)
	keys := t.TempDir()
	ok(t, "key", "create", "-name", "k", "-store", s.store, "-keys", keys)
	faults.Add(tpmtest.Fault{Command: tpm2.TPMCCReadClock, Times: -1, RC: tpm2.TPMRCFailure})
	d := examined(t, "-store", s.store, "-keys", keys)
	d.failed("TPM")
	d.want("TPM", statusFail, "failure mode", "switch the device off and on")
	d.want("key folder", statusWarn, "without a TPM")
	d.want("system clock", statusOK)
	faults.Clear()

	faults.Add(tpmtest.Fault{Command: tpm2.TPMCCCreatePrimary, Times: -1, RC: tpm2.TPMRCObjectMemory})
	d = examined(t, "-store", s.store, "-keys", keys)
	d.failed("storage root key", "key k")
	d.want("key k", statusFail, "see the TPM")
	faults.Clear()
}

// Findings that are hard to bring about in a TPM.
func TestDoctorFindings(t *testing.T) {
	well := tpm.Hierarchy{Enabled: true}
	for name, tt := range map[string]struct {
		report func(*doctor)
		status status
		words  []string
	}{
		"lockout for ever": {func(d *doctor) { d.lockout(&tpm.Lockout{Active: true, AuthSet: true}) }, statusFail,
			[]string{"does not forgive by itself", "with the lockout password in FILE"}},
		"no hierarchy":      {func(d *doctor) { d.hierarchy("h", "", tpm.Hierarchy{}, "no keys", "") }, statusFail, []string{"no keys", "firmware setup"}},
		"hierarchy":         {func(d *doctor) { d.hierarchy("h", "", well, "", "") }, statusOK, nil},
		"no slots":          {func(d *doctor) { d.room(&tpm.Status{FreeSessions: 3}) }, statusFail, []string{"full"}},
		"no sessions":       {func(d *doctor) { d.room(&tpm.Status{FreeObjects: 3}) }, statusFail, []string{"full"}},
		"few slots":         {func(d *doctor) { d.room(&tpm.Status{FreeObjects: 1, FreeSessions: 3}) }, statusWarn, []string{"full"}},
		"SHA-1 alone":       {func(d *doctor) { d.banks([]string{"SHA-1"}) }, statusFail, []string{"tpm2_pcrallocate"}},
		"power cut":         {func(d *doctor) { d.tpmClock(&tpm.Clock{}) }, statusOK, []string{"power was cut"}},
		"bad certificate":   {func(d *doctor) { d.certificates(&tpm.Status{EKCertificates: []tpm.EKCertificate{{Index: 0x01c00002}}}) }, statusWarn, []string{"0x01c00002"}},
		"other SRK":         {func(d *doctor) { d.storageRootKey(&tpm.StorageRootKey{Persistent: "RSA-2048"}) }, statusOK, []string{"RSA-2048 at 0x81000001"}},
		"no SRK, no reason": {func(d *doctor) { d.storageRootKey(&tpm.StorageRootKey{Err: keystore.ErrUnavailable}) }, statusFail, []string{"see owner hierarchy and room"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, findings := newDoctor(t, doctorFlags{})
			tt.report(d)
			if len(findings().findings) != 1 {
				t.Fatalf("found %+v", findings().findings)
			}
			findings().want(findings().findings[0].Check, tt.status, tt.words...)
		})
	}
}

// TestAdviceOnKey: the advice is about the cause, not about the sentinel alone.
func TestAdviceOnKey(t *testing.T) {
	for want, err := range map[string]error{
		"boot what the key is bound to": keystore.ErrPolicy,
		"make a key of another name":    fmt.Errorf("%w: %w", keystore.ErrPolicy, errors.ErrUnsupported), // its policy is not known
		"to the program that made it":   fmt.Errorf("%w: %w", keystore.ErrUnavailable, errors.ErrUnsupported),
		"see the TPM":                   keystore.ErrUnavailable,
	} {
		if got := adviceOnKey(err, "see the TPM"); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
