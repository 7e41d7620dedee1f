// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestDisabledOwner: while the owner hierarchy is disabled the TPM says of every
// persistent key that it is not there. It is neither deleted nor lost.
func TestDisabledOwner(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r, o := besides(t, sim)
	create(t, r.Store, "key", tpm.KeyOptions{})
	if err := r.Persist(t.Context(), "key", handle); err != nil {
		t.Fatal(err)
	}
	create(t, r.Store, "other", tpm.KeyOptions{})
	o.tool("tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc", "-c", o.file("srk"))
	o.tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", o.file("srk"), "0x81000001")
	o.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256", "-pkeyopt", "parent:0x81000001", "-out", filepath.Join(r.config.Dir, "foreign.pem"))
	disableOwner(t, sim)

	for what, do := range map[string]func(s *tpm.Store) error{
		"Delete":    func(s *tpm.Store) error { return s.Delete(t.Context(), "key") },
		"Unpersist": func(s *tpm.Store) error { return s.Unpersist(t.Context(), "key") },
		"Persist":   func(s *tpm.Store) error { return s.Persist(t.Context(), "other", handle+1) },
		"Open": func(s *tpm.Store) error {
			_, err := s.Open(t.Context(), "foreign")
			return err
		},
		"Create": func(s *tpm.Store) error {
			_, err := s.Create(t.Context(), "new")
			return err
		},
	} {
		s := r.reopen(t)
		err := do(s)
		if wantError(t, err, keystore.ErrUnavailable); !strings.Contains(err.Error(), "owner hierarchy is disabled") {
			t.Errorf("%s: %q does not say what is wrong", what, err)
		}
		s.Close()
	}
	if d := describe(t, r.Store, "key"); d.Handle != handle {
		t.Errorf("the file says 0x%x", d.Handle)
	}
	sim.Reset()
	sign(t, open(t, r.Store, "foreign"))
	sign(t, open(t, r.Store, "key"))
	if err := r.Delete(t.Context(), "key"); err != nil {
		t.Error(err)
	}
	o.tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", "0x81000001")
	if h := persistent(t, sim); len(h) != 0 {
		t.Errorf("persistent keys %x are left", h)
	}
}

// TestForgedErrors: whatever error is forged for one command of Persist, Unpersist or
// Delete, executed or not: what is persistent has a file that says so.
func TestForgedErrors(t *testing.T) {
	sim := tpmtest.Simulator(t)
	operations := map[string]func(s *tpm.Store) error{
		"persist":   func(s *tpm.Store) error { return s.Persist(t.Context(), "key", handle) },
		"unpersist": func(s *tpm.Store) error { return s.Unpersist(t.Context(), "key") },
		"delete":    func(s *tpm.Store) error { return s.Delete(t.Context(), "key") },
	}
	forged := 0
	for name, do := range operations {
		for _, code := range []tpm2.TPMRC{tpm2.TPMRCHandle, tpm2.TPMRCNVDefined, tpm2.TPMRCBadAuth, tpm2.TPMRCSuccess} {
			for _, executed := range []bool{false, true} {
				if executed && code == tpm2.TPMRCSuccess {
					continue
				}
				t.Run(fmt.Sprintf("%s %v %t", name, code, executed), func(t *testing.T) {
					for skip := 0; ; skip++ {
						r := newRig(t, sim, func(c *tpm.Config) { c.Exclusive = true })
						create(t, r.Store, "key", tpm.KeyOptions{})
						if name != "persist" {
							if err := r.Persist(t.Context(), "key", handle); err != nil {
								t.Fatal(err)
							}
						}
						fault := tpmtest.Fault{Skip: skip, Executed: executed, RC: code}
						if code == tpm2.TPMRCSuccess { // of a command that was not executed
							fault = tpmtest.Fault{Skip: skip, Command: ccEvictControl, Answer: func([]byte) []byte {
								return []byte{0x80, 2, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
							}}
						}
						injected := r.faults.Add(fault)
						err := do(r.Store)
						r.faults.Clear()
						if injected.Fired() == 0 {
							r.Close()
							cleanUp(t, sim)
							return
						}
						forged++
						there := len(persistent(t, sim)) == 1
						names, _ := r.List(t.Context())
						noted := len(names) == 1 && describe(t, r.Store, "key").Handle == handle
						if there && !noted {
							t.Errorf("command %d: the key is persistent, and no file says so: %v", skip, err)
						}
						if err == nil && (name == "persist") != there {
							t.Errorf("command %d: no error, and the key is persistent: %t", skip, there)
						}
						r.Close()
						cleanUp(t, sim)
					}
				})
			}
		}
	}
	if forged < 50 {
		t.Errorf("only %d answers were forged", forged)
	}
}

// cleanUp removes all persistent keys.
func cleanUp(t *testing.T, sim *tpmtest.Sim) {
	t.Helper()
	for _, h := range persistent(t, sim) {
		public, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(sim)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tpm2.EvictControl{
			Auth: tpm2.TPMRHOwner, ObjectHandle: tpm2.NamedHandle{Handle: h, Name: public.Name}, PersistentHandle: h,
		}.Execute(sim)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestDeleteTakesCopies: what a killed process has left of a key's file goes with the
// key, under whatever name it is and be it torn, and nothing else does.
func TestDeleteTakesCopies(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	create(t, r.Store, "key", tpm.KeyOptions{})
	create(t, r.Store, "other", tpm.KeyOptions{})
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(r.config.Dir, name+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	write := func(name string, text []byte) {
		if err := os.WriteFile(filepath.Join(r.config.Dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, other := read("key"), read("other")
	write(".new-123", text)                                       // as version 0.1 names them
	write(".new-124", append(text[:len(text):len(text)], "x"...)) // of another state
	write(".new-125", text[:strings.Index(string(text), "-----END")])
	write(".new-key.pem-1", text[:10])
	write(".new-126", other)
	write(".new-127", []byte(rand.Text()))
	write(".new-other.pem-1", other)
	write("notes.txt", text)
	if err := r.Delete(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(r.config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got, want := strings.Join(left, " "), ".new-126 .new-127 .new-other.pem-1 notes.txt other.pem"; got != want {
		t.Errorf("left are %q, want %q", got, want)
	}
}
