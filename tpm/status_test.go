// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// statusCommands are those of a TPM without certificates.
var statusCommands = []tpm2.TPMCC{
	ccGetCapability, ccGetCapability, ccGetCapability, tpm2.TPMCCReadClock, ccGetCapability, ccReadPublic, ccCreatePrimary, ccFlush,
}

func status(t *testing.T, s *tpm.Store) tpm.Status {
	t.Helper()
	status, err := s.Status(t.Context())
	if err != nil {
		t.Fatalf("Status: %v", err)
	}
	return status
}

// eachTPM runs a test on both kinds of TPM and behind the resource manager.
func eachTPM(t *testing.T, f func(t *testing.T, d tpmtest.Device)) {
	for name, device := range devices() {
		t.Run(name, func(t *testing.T) { f(t, device(t)) })
	}
}

// setUp lets a test do something to the TPM before a Store is opened; swtpm
// serves one connection at a time.
func setUp(t *testing.T, d tpmtest.Device, f func(transport.TPM)) {
	t.Helper()
	conn, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f(conn)
}

func TestStatus(t *testing.T) {
	eachTPM(t, func(t *testing.T, d tpmtest.Device) {
		r := newRig(t, d)
		got := status(t, r.Store)
		r.calls.Want(t, statusCommands...)
		t.Logf("%+v", got)
		if got.Manufacturer == "" || got.Firmware == "0.0.0.0" || !strings.HasPrefix(got.Specification, "2.0 revision 1.") {
			t.Errorf("identity: %+v", got)
		}
		if managed := strings.HasSuffix(t.Name(), "manager"); got.Managed != managed {
			t.Errorf("managed: %t, want %t", got.Managed, managed)
		}
		if got.FreeObjects != 3 || got.FreeSessions < 3 || got.FreePersistent < 2 {
			t.Errorf("room: %+v", got)
		}
		on := tpm.Hierarchy{Enabled: true}
		if got.Owner != on || got.Endorsement != on {
			t.Errorf("hierarchies: %+v, %+v", got.Owner, got.Endorsement)
		}
		l := got.Lockout
		if l.Active || l.Failures != 0 || l.MaxFailures != 3 || l.Interval != 1000*time.Second || l.AuthRecovery != 1000*time.Second || l.AuthSet {
			t.Errorf("lockout: %+v", l)
		}
		if srk := got.StorageRootKey; len(srk.Name) != 34 || srk.Err != nil || srk.Persistent != "" {
			t.Errorf("storage root key: %+v", srk)
		}
		if !slices.Contains(got.PCRBanks, "SHA-256") || len(got.EKCertificates) != 0 {
			t.Errorf("PCR banks %q, certificates %v", got.PCRBanks, got.EKCertificates)
		}
		if !got.Clock.Safe || got.Clock.Running > time.Hour {
			t.Errorf("clock: %+v", got.Clock)
		}
		if again := status(t, r.Store); !bytes.Equal(again.StorageRootKey.Name, got.StorageRootKey.Name) {
			t.Error("another storage root key the second time")
		}
	})
}

// A key that is loaded makes room, and signs afterwards.
func TestStatusWithKey(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	r.calls.Reset()
	if free := status(t, r.Store).FreeObjects; free != 3 {
		t.Errorf("%d objects are free, want 3: the Store's key counts", free)
	}
	r.calls.Want(t, append([]tpm2.TPMCC{ccContextSave, ccFlush}, statusCommands...)...)
	sign(t, key)
	description, err := r.Describe(t.Context(), "key")
	if err != nil || !bytes.Equal(description.ParentName, status(t, r.Store).StorageRootKey.Name) {
		t.Errorf("the key has the parent %x: %v", description.ParentName, err)
	}
	sim.Manufacture()
	if bytes.Equal(description.ParentName, status(t, r.Store).StorageRootKey.Name) {
		t.Error("another TPM has the same storage root key")
	}
}

func TestStatusLockout(t *testing.T) {
	eachTPM(t, func(t *testing.T, d tpmtest.Device) {
		r := newRig(t, d, withPIN("1234"))
		create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
		r.Close()
		var wrong string // another one each time: none is tried twice
		r.config.PIN = func(context.Context, string) ([]byte, error) { return []byte(wrong), nil }
		s := r.reopen(t)
		defer s.Close()
		key := open(t, s, "key")
		for n := 1; n <= 3; n++ {
			wrong = fmt.Sprint("wrong ", n)
			if _, err := key.Sign(t.Context(), []byte("input")); !errors.Is(err, keystore.ErrAuth) {
				t.Fatalf("try %d: %v", n, err)
			}
			if l := status(t, s).Lockout; l.Failures != n || l.Active != (n == 3) {
				t.Errorf("after %d failures: %+v", n, l)
			}
		}
		got := status(t, s)
		if got.StorageRootKey.Err != nil {
			t.Errorf("in a lockout: %v", got.StorageRootKey.Err)
		}
	})
}

func TestStatusPasswords(t *testing.T) {
	eachTPM(t, func(t *testing.T, d tpmtest.Device) {
		setUp(t, d, func(conn transport.TPM) {
			tpmtest.ChangeHierarchyAuth(t, conn, tpm2.TPMRHOwner, "", "owner")
			tpmtest.ChangeHierarchyAuth(t, conn, tpm2.TPMRHEndorsement, "", "endorsement")
			tpmtest.ChangeHierarchyAuth(t, conn, tpm2.TPMRHLockout, "", "lockout")
		})
		r := newRig(t, d)
		got := status(t, r.Store)
		if !got.Owner.AuthSet || !got.Endorsement.AuthSet || !got.Lockout.AuthSet {
			t.Errorf("passwords: %+v", got)
		}
		wantError(t, got.StorageRootKey.Err, keystore.ErrAuth, tpm2.TPMRCBadAuth)
		if got.StorageRootKey.Name != nil || got.Lockout.Failures != 0 {
			t.Errorf("without the password: %+v", got)
		}
		r.Close()

		r.config.OwnerAuth = []byte("owner")
		s := r.reopen(t)
		defer s.Close()
		if srk := status(t, s).StorageRootKey; srk.Err != nil || len(srk.Name) != 34 {
			t.Errorf("with the password: %+v", srk)
		}
	})
}

func TestStatusDisabledHierarchy(t *testing.T) {
	sim := tpmtest.Simulator(t)
	defer sim.Reset()
	for _, hierarchy := range []tpm2.TPMHandle{tpm2.TPMRHOwner, tpm2.TPMRHEndorsement} {
		command := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTSessions))
		command = binary.BigEndian.AppendUint32(command, 32)
		command = binary.BigEndian.AppendUint32(command, 0x121) // TPM2_HierarchyControl
		command = binary.BigEndian.AppendUint32(command, uint32(tpm2.TPMRHPlatform))
		command = append(command, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0) // an empty password
		command = binary.BigEndian.AppendUint32(command, uint32(hierarchy))
		command = append(command, 0)
		if answer, err := sim.Send(command); err != nil || binary.BigEndian.Uint32(answer[6:]) != 0 {
			t.Fatalf("%x, %v", answer, err)
		}
	}
	r := newRig(t, sim)
	got := status(t, r.Store)
	if got.Owner.Enabled || got.Endorsement.Enabled {
		t.Errorf("hierarchies: %+v, %+v", got.Owner, got.Endorsement)
	}
	wantError(t, got.StorageRootKey.Err, keystore.ErrUnavailable, tpm2.TPMRCHierarchy)
}

func TestStatusPersistentSRK(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for want, template := range map[string]tpm2.TPMTPublic{"RSA-2048": tpm2.RSASRKTemplate, "ECC P-256": tpm2.ECCSRKTemplate} {
		sim.Manufacture()
		rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)}.Execute(sim)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tpm2.EvictControl{
			Auth:             tpm2.TPMRHOwner,
			ObjectHandle:     &tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name},
			PersistentHandle: 0x81000001,
		}.Execute(sim)
		if err != nil {
			t.Fatal(err)
		}
		flush(t, sim, rsp.ObjectHandle)
		r := newRig(t, sim)
		if got := status(t, r.Store).StorageRootKey; got.Persistent != want || got.Err != nil {
			t.Errorf("found %+v, want %q", got, want)
		}
		r.Close()
	}
}

func TestStatusEKCertificates(t *testing.T) {
	eachTPM(t, func(t *testing.T, d tpmtest.Device) {
		var der []byte
		setUp(t, d, func(conn transport.TPM) {
			der = issue(t, endorsementPublic(t, conn, tpm2.RSAEKTemplate))
			defineNV(t, conn, 0x01c00002, ownerNV, len(der)+100, der)
			defineNV(t, conn, 0x01c0000a, ownerNV, 20, []byte("no certificate"))
			defineNV(t, conn, 0x01c00014, ownerNV, len(der), der) // an RSA key's, in the place for another
			defineNV(t, conn, 0x01c00100, ownerNV, 20, []byte("something else"))
			defineNV(t, conn, 0x01c00200, ownerNV, 20, []byte("something else"))
		})
		r := newRig(t, d)
		got := status(t, r.Store).EKCertificates
		if len(got) != 3 || got[0].Index != 0x01c00002 || got[1].Index != 0x01c0000a || got[2].Index != 0x01c00014 {
			t.Fatalf("got %+v", got)
		}
		if got[1].Certificate != nil || got[2].Certificate != nil {
			t.Errorf("got %+v", got)
		}
		if got[0].Certificate == nil || !bytes.Equal(got[0].Certificate.Raw, der) {
			t.Errorf("got %+v", got[0].Certificate)
		}
		indexes := len(got) + 1
		if reads := r.calls.Count(ccNVRead); reads < indexes || r.calls.Count() != len(statusCommands)+reads+2*indexes {
			t.Errorf("commands: %s", tpmtest.Names(r.calls.Codes()))
		}
	})
}

// TestStatusEKLinks: the links that a TPM has to its maker's root, and what was handed
// over, are there for a technician to see.
func TestStatusEKLinks(t *testing.T) {
	sim := tpmtest.Simulator(t)
	links := [][]byte{issue(t, newECDSA(t)), issue(t, newECDSA(t))}
	chain := slices.Concat(links[0], []byte{0x30, 2, 5, 0}, links[1])
	defineNV(t, sim, 0x01c00100, ownerNV, 1000, chain[:1000])
	defineNV(t, sim, 0x01c00101, ownerNV, len(chain)-1000, chain[1000:])
	leaf := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	ca := issueCA(t)
	r := newRig(t, sim, func(cfg *tpm.Config) { cfg.EKCertificates = [][]byte{leaf, ca} })
	got := status(t, r.Store)
	if n := len(got.EKCertificates); n != 1 || got.EKCertificates[0].Index != 0 || !bytes.Equal(got.EKCertificates[0].Certificate.Raw, leaf) {
		t.Errorf("certificates %+v", got.EKCertificates)
	}
	want := []struct {
		index uint32
		der   []byte
	}{{0x01c00100, links[0]}, {0x01c00100, nil}, {0x01c00100, links[1]}, {0, ca}}
	if len(got.EKLinks) != len(want) {
		t.Fatalf("%d links, want %d", len(got.EKLinks), len(want))
	}
	for i, w := range want {
		link := got.EKLinks[i]
		if link.Index != w.index || (link.Certificate == nil) != (w.der == nil) || w.der != nil && !bytes.Equal(link.Certificate.Raw, w.der) {
			t.Errorf("link %d: %+v", i, link)
		}
	}
}

// Faults of the connection and nonsense are errors of Status; the next one works.
func TestStatusFaults(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	for _, command := range slices.Compact(slices.Clone(statusCommands))[:4] {
		for name, f := range map[string]tpmtest.Fault{
			"garbled": {Command: command, Times: -1, Answer: func([]byte) []byte { return []byte("garbled") }},
			"empty":   {Command: command, Times: -1, Answer: func([]byte) []byte { return []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0} }},
			"EIO":     {Command: command, Times: -1, Err: syscall.EIO},
		} {
			t.Run(tpmtest.Names([]tpm2.TPMCC{command})+" "+name, func(t *testing.T) {
				defer r.faults.Clear()
				r.faults.Add(f)
				_, err := r.Status(t.Context())
				wantError(t, err, keystore.ErrUnavailable)
				r.faults.Clear()
				status(t, r.Store)
			})
		}
	}
	// What is lost once is not seen.
	r.faults.Add(tpmtest.Fault{Command: ccCreatePrimary, Err: syscall.EPIPE})
	status(t, r.Store)
	r.faults.Add(tpmtest.Fault{Command: ccCreatePrimary, RC: tpm2.TPMRCObjectMemory})
	wantError(t, status(t, r.Store).StorageRootKey.Err, keystore.ErrUnavailable, tpm2.TPMRCObjectMemory)

	// A property that is not there is not 0.
	r.faults.Add(tpmtest.Fault{Command: ccGetCapability, Skip: 1, Times: -1, Executed: true, Answer: func(real []byte) []byte {
		return bytes.Replace(real, []byte{0, 0, 2, 0}, []byte{0, 0, 2, 0xff}, 1)
	}})
	_, err := r.Status(t.Context())
	wantError(t, err, keystore.ErrUnavailable)
	if !strings.Contains(err.Error(), "0x200") {
		t.Errorf("got %v", err)
	}
	r.faults.Clear()
	r.Close()
	_, err = r.Status(t.Context())
	wantError(t, err, keystore.ErrClosed)
}
