// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestUnnamedParent: tpm2_encodeobject writes the owner hierarchy for every parent
// that is a context. What tpm2_createprimary makes by itself is found all the same.
func TestUnnamedParent(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for name, tt := range map[string]struct {
		primary []string
		pin     bool
	}{
		"ecc":     {[]string{"-G", "ecc"}, false},
		"ecc PIN": {[]string{"-G", "ecc"}, true},
		"default": {nil, false},
		"rsa PIN": {[]string{"-G", "rsa"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			sim.Manufacture()
			r, o := besides(t, sim, func(c *tpm.Config) {
				if tt.pin {
					withPIN("1234")(c)
				}
			})
			o.tool("tpm2_createprimary", append([]string{"-Q", "-C", "o", "-c", o.file("parent")}, tt.primary...)...)
			args := []string{"-Q", "-C", o.file("parent"), "-G", "ecc256:ecdsa-sha256", "-a", plain, "-u", o.file("pub"), "-r", o.file("priv")}
			if tt.pin {
				args = append(args, "-p", "1234")
			}
			o.tool("tpm2_create", args...)
			path := filepath.Join(r.config.Dir, "key.pem")
			o.tool("tpm2_encodeobject", "-C", o.file("parent"), "-u", o.file("pub"), "-r", o.file("priv"), "-o", path)
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s := r.reopen(t)
				key := open(t, s, "key")
				sign(t, key)
				prove(t, key)
				s.Close()
			}
			r.calls.Reset()
			s := r.reopenAfter(t)
			sign(t, open(t, s, "key"))
			if n := r.calls.Count(ccCreatePrimary); n != 1 {
				t.Errorf("TPM2_CreatePrimary was sent %d times once the parent was known, want 1", n)
			}
			s.Close()
			sim.Manufacture()
			s = r.reopenAfter(t)
			_, err := s.Open(t.Context(), "key")
			wantError(t, err, keystore.ErrKeyLost) // which is certain now
		})
	}
}

// TestUnknownParent: a file that does not name its parent is not taken for lost
// because none of the parents that are known has made the key.
func TestUnknownParent(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	other := eccPrimary
	other.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: []byte("another")}})
	put(t, r, "key", encodeKey(under(t, sim, tpm2.TPMRHOwner, other, signingTemplate()), ownerParent))
	_, err := r.Open(t.Context(), "key")
	if wantError(t, err, keystore.ErrUnavailable, tpm2.TPMRCIntegrity); strings.Contains(err.Error(), "delete the key") || !strings.Contains(err.Error(), "tpm2_encodeobject -C HANDLE") {
		t.Errorf("%q gives the wrong advice", err)
	}
}

// TestGuessMeetsTheTPM: what goes wrong with the TPM while parents are guessed says
// nothing about the key, and nobody is told to enrol with a new one.
func TestGuessMeetsTheTPM(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	tools := eccPrimary
	tools.ObjectAttributes.NoDA = false
	put(t, r, "key", encodeKey(under(t, sim, tpm2.TPMRHOwner, tools, signingTemplate()), ownerParent))
	for code, sentinel := range map[tpm2.TPMRC]error{
		tpm2.TPMRCLockout:       keystore.ErrLockedOut,
		tpm2.TPMRCFailure:       keystore.ErrUnavailable,
		tpm2.TPMRCUpgrade:       keystore.ErrUnavailable,
		tpm2.TPMRCObjectMemory:  keystore.ErrUnavailable,
		tpm2.TPMRCNVUnavailable: keystore.ErrUnavailable,
	} {
		for _, command := range []tpm2.TPMCC{ccCreatePrimary, ccLoad} {
			r.faults.Add(tpmtest.Fault{Command: command, Skip: 1, RC: code, Times: -1})
			_, err := r.Open(t.Context(), "key")
			if wantError(t, err, sentinel, code); strings.Contains(err.Error(), "enrol") {
				t.Errorf("%v of %v: %q gives the wrong advice", code, command, err)
			}
			r.faults.Clear()
		}
	}
	sign(t, open(t, r.Store, "key"))
}

// TestParent: the persistent parent of a key of another program has gone, or is another.
// An ECC storage root key is made again, and what cannot be is neither missing nor
// replaced, until it is back.
func TestParent(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for algorithm, other := range map[string]string{"ecc": "rsa2048", "rsa2048": "ecc"} {
		t.Run(algorithm, func(t *testing.T) {
			sim.Manufacture()
			r, o := besides(t, sim, withPIN("1234"))
			put := func(algorithm string) {
				o.tool("tpm2_createprimary", "-Q", "-C", "o", "-G", algorithm, "-c", o.file("srk"))
				o.tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", o.file("srk"), "0x81000001")
			}
			remove := func() { o.tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", "0x81000001") }
			put(algorithm)
			o.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256", "-pkeyopt", "parent:0x81000001", "-pkeyopt", "user-auth:1234",
				"-out", filepath.Join(r.config.Dir, "key.pem"))
			// Persist before Open: its parent is noted all the same.
			if err := r.Persist(t.Context(), "key", handle); err != nil {
				t.Fatal(err)
			}
			sign(t, open(t, r.Store, "key"))
			if err := r.Unpersist(t.Context(), "key"); err != nil {
				t.Fatal(err)
			}
			check := func(what string, lost bool) {
				t.Helper()
				s := r.reopen(t)
				defer s.Close()
				key, err := s.Open(t.Context(), "key")
				if !lost && err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if !lost {
					sign(t, key)
					prove(t, key)
					return
				}
				if wantError(t, err, keystore.ErrKeyLost); !strings.Contains(err.Error(), "enrol anew") {
					t.Errorf("%s: %v", what, err)
				}
				_, err = keystore.OpenOrCreate(t.Context(), s, "key")
				wantError(t, err, keystore.ErrKeyLost)
			}
			remove()
			check("gone", algorithm != "ecc")
			put(other)
			check("another", algorithm != "ecc")
			remove()
			put(algorithm)
			check("back", false)
			sim.Manufacture()
			check("cleared", true)
			put(algorithm)
			check("cleared, and a parent of the same kind", true)
			remove()
			if n := wrongTries(t, sim); n != 0 {
				t.Errorf("%d wrong tries", n)
			}
		})
	}
}

// TestProvisionedParent: the same for the TCG's template with a unique field of zeros,
// as operating systems make it.
func TestProvisionedParent(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	const at = tpm2.TPMHandle(0x81000001)
	parent, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	named := tpm2.NamedHandle{Handle: parent.ObjectHandle, Name: parent.Name}
	if _, err := (tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: named, PersistentHandle: at}).Execute(sim); err != nil {
		t.Fatal(err)
	}
	made, err := tpm2.Create{ParentHandle: named, InPublic: tpm2.New2B(signingTemplate())}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	flush(t, sim, parent.ObjectHandle)
	put(t, r, "key", encodeKey(made, binary.BigEndian.AppendUint32([]byte{0}, uint32(at))))
	sign(t, open(t, r.Store, "key"))
	cleanUp(t, sim)
	s := r.reopenAfter(t)
	sign(t, open(t, s, "key"))
	tpmtest.ChangeHierarchyAuth(t, sim, tpm2.TPMRHOwner, "", "password")
	defer tpmtest.ChangeHierarchyAuth(t, sim, tpm2.TPMRHOwner, "password", "")
	_, err = r.reopenAfter(t).Open(t.Context(), "key")
	wantError(t, err, keystore.ErrAuth) // it is not known whether the key is lost
}

// TestUnpinnedParent: the parent of a file that was never used here is not at its
// handle. Nobody knows which it was, so nothing is lost; those that are made in a moment
// are tried.
func TestUnpinnedParent(t *testing.T) {
	sim := tpmtest.Simulator(t)
	tools := eccPrimary
	tools.ObjectAttributes.NoDA = false
	at := binary.BigEndian.AppendUint32([]byte{0}, 0x81000001)
	for name, tt := range map[string]struct {
		parent tpm2.TPMTPublic
		found  bool
	}{
		"H-2": {eccPrimary, true}, "with zeros": {tpm2.ECCSRKTemplate, true}, "tpm2-tools": {tools, true}, "RSA": {rsaPrimary, false},
	} {
		t.Run(name, func(t *testing.T) {
			sim.Manufacture()
			r := newRig(t, sim, withPIN("1234"))
			put(t, r, "key", encodeKey(under(t, sim, tpm2.TPMRHOwner, tt.parent, signingTemplate()), at))
			for range 2 {
				s := r.reopen(t)
				key, err := s.Open(t.Context(), "key")
				if tt.found && err != nil {
					t.Fatal(err)
				}
				if tt.found {
					sign(t, key)
				} else if wantError(t, err, keystore.ErrUnavailable); !strings.Contains(err.Error(), "put it back") {
					t.Error(err)
				}
				s.Close()
			}
			if d := describe(t, r.Store, "key"); (d.ParentName != nil) != tt.found || d.Parent != 0x81000001 {
				t.Errorf("the file says the parent 0x%x, Name %x", d.Parent, d.ParentName)
			}
			sim.Manufacture()
			want := keystore.ErrKeyLost
			if !tt.found {
				want = keystore.ErrUnavailable
			}
			_, err := r.reopenAfter(t).Open(t.Context(), "key")
			wantError(t, err, want)
		})
	}
}
