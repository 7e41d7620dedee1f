// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestCommands: which commands each operation sends, exactly.
func TestCommands(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, tt := range []struct {
		name    string
		options tpm.KeyOptions

		create, openCold, firstSign, warm, closed, deleted []tpm2.TPMCC
	}{
		{
			name:      "no PIN",
			create:    []tpm2.TPMCC{ccCreatePrimary, ccCreate, ccLoad, ccFlush},
			openCold:  []tpm2.TPMCC{ccCreatePrimary, ccLoad, ccFlush},
			firstSign: []tpm2.TPMCC{ccSign},
			warm:      []tpm2.TPMCC{ccSign},
			closed:    []tpm2.TPMCC{ccFlush},
			deleted:   []tpm2.TPMCC{ccFlush},
		}, {
			name:      "PIN",
			options:   tpm.KeyOptions{PIN: true},
			create:    []tpm2.TPMCC{ccCreatePrimary, ccStartSession, ccCreate, ccLoad, ccFlush},
			openCold:  []tpm2.TPMCC{ccCreatePrimary, ccLoad, ccStartSession, ccFlush},
			firstSign: []tpm2.TPMCC{ccSign},
			warm:      []tpm2.TPMCC{ccSign},
			closed:    []tpm2.TPMCC{ccFlush, ccFlush},
			deleted:   []tpm2.TPMCC{ccFlush, ccFlush},
		}, {
			name:      "PCRs",
			options:   tpm.KeyOptions{PCRs: []int{7}},
			create:    []tpm2.TPMCC{ccPCRRead, ccCreatePrimary, ccCreate, ccLoad, ccFlush, ccStartSession, ccPolicyPCR, ccSign},
			openCold:  []tpm2.TPMCC{ccCreatePrimary, ccLoad, ccFlush},
			firstSign: []tpm2.TPMCC{ccStartSession, ccPolicyPCR, ccSign},
			warm:      []tpm2.TPMCC{ccPolicyPCR, ccSign},
			closed:    []tpm2.TPMCC{ccFlush, ccFlush},
			deleted:   []tpm2.TPMCC{ccFlush, ccFlush},
		}, {
			name:    "PCRs and PIN",
			options: tpm.KeyOptions{PCRs: []int{7}, PIN: true},
			create: []tpm2.TPMCC{ccPCRRead, ccCreatePrimary, ccStartSession, ccCreate, ccLoad, ccStartSession, ccFlush,
				ccPolicyAuthValue, ccPolicyPCR, ccSign},
			openCold:  []tpm2.TPMCC{ccCreatePrimary, ccLoad, ccStartSession, ccFlush},
			firstSign: []tpm2.TPMCC{ccPolicyAuthValue, ccPolicyPCR, ccSign},
			warm:      []tpm2.TPMCC{ccPolicyAuthValue, ccPolicyPCR, ccSign},
			closed:    []tpm2.TPMCC{ccFlush, ccFlush, ccFlush}, // Create's session, too
			deleted:   []tpm2.TPMCC{ccFlush, ccFlush},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, sim, withPIN("1234"))
			expect := func(what string, want []tpm2.TPMCC, do func()) {
				t.Helper()
				r.calls.Reset()
				do()
				if got := r.calls.Codes(); !slices.Equal(got, want) {
					t.Errorf("%s:\n got %s\nwant %s", what, tpmtest.Names(got), tpmtest.Names(want))
				}
			}
			var key keystore.Key
			expect("create", tt.create, func() { key = create(t, r.Store, "key", tt.options) })
			created := tt.firstSign
			if len(tt.options.PCRs) > 0 { // there was one, to see that the policy can be satisfied
				created = tt.warm
			}
			expect("first signature of a created key", created, func() { sign(t, key) })
			expect("warm signature", tt.warm, func() { sign(t, key) })
			expect("open of a loaded key", nil, func() { key = open(t, r.Store, "key") })
			expect("warm signature of an opened key", tt.warm, func() { sign(t, key) })
			expect("close", tt.closed, func() { r.Close() })

			s := r.reopen(t)
			defer s.Close()
			expect("open", tt.openCold, func() { key = open(t, s, "key") })
			expect("first signature", tt.firstSign, func() { sign(t, key) })
			expect("create of a name that is taken", nil, func() { s.Create(t.Context(), "key") })
			expect("delete", tt.deleted, func() {
				if err := s.Delete(t.Context(), "key"); err != nil {
					t.Error(err)
				}
			})
			expect("delete of nothing", nil, func() {
				if err := s.Delete(t.Context(), "key"); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestForeignCommands: another program's key costs what one of ours does, if its file says
// what is true and can be believed; and how much more it costs if not, in the first process
// and in the next.
func TestForeignCommands(t *testing.T) {
	sim := tpmtest.Simulator(t)
	defer forgive(t, sim)
	const at = tpm2.TPMHandle(0x81010001)
	persist(t, sim, tpm2.ECCSRKTemplate)
	defer cleanUp(t, sim)
	for _, tt := range []struct {
		name              string
		key               foreignKey
		open, first, next int // commands to open and sign: in all, the latter two
	}{
		{"no PIN", foreignKey{emptyAuth: true}, 3, 4, 4},
		{"no PIN, the parent persistent", foreignKey{emptyAuth: true, parent: at}, 2, 3, 3},
		{"PIN", foreignKey{password: "1234"}, 4, 5, 5},
		{"PIN, the parent persistent", foreignKey{password: "1234", parent: at}, 3, 4, 4},
		{"PIN, and the file says none", foreignKey{password: "1234", emptyAuth: true}, 3, 8, 5},
		// tpm2-tools up to 5.7 says so of keys without a PIN, and trying without is free.
		{"PIN, noDA", foreignKey{password: "1234", noDA: true}, 3, 8, 7},
		{"no PIN, noDA", foreignKey{noDA: true}, 3, 4, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, sim, withPIN("1234"))
			put(t, r, "key", tt.key.file(t, sim))
			for _, want := range []int{tt.first, tt.next} {
				s := r.reopen(t)
				r.calls.Reset()
				key := open(t, s, "key")
				if n := len(r.calls.Codes()); want == tt.first && n != tt.open {
					t.Errorf("Open sends %d commands, want %d: %s", n, tt.open, tpmtest.Names(r.calls.Codes()))
				}
				sign(t, key)
				if n := len(r.calls.Codes()); n != want {
					t.Errorf("Open and Sign send %d commands, want %d: %s", n, want, tpmtest.Names(r.calls.Codes()))
				}
				s.Close()
			}
		})
	}
}

// TestManyKeys: ten keys in turn, of which one is loaded at a time, on a TPM
// with three slots, two of which another program has.
func TestManyKeys(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	other := createPrimary(t, sim)
	defer flush(t, sim, other)

	var keys []keystore.Key
	for i := range 10 {
		keys = append(keys, create(t, r.Store, fmt.Sprint(i), tpm.KeyOptions{}))
	}
	for range 2 {
		for _, key := range keys {
			sign(t, key)
			if n := len(tpmtest.Handles(t, sim, tpm2.TPMHTTransient)); n != 2 {
				t.Fatalf("%d objects in the TPM, want 2: another program's and one key", n)
			}
		}
	}
	r.calls.Reset()
	sign(t, keys[3])
	r.calls.Want(t, ccFlush, ccContextLoad, ccSign)
	sign(t, keys[3])
	r.calls.Want(t, ccFlush, ccContextLoad, ccSign, ccSign)
}

func createPrimary(t *testing.T, sim *tpmtest.Sim) tpm2.TPMHandle {
	t.Helper()
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	return rsp.ObjectHandle
}

func flush(t testing.TB, sim *tpmtest.Sim, handle tpm2.TPMHandle) {
	t.Helper()
	if _, err := (tpm2.FlushContext{FlushHandle: handle}).Execute(sim); err != nil {
		t.Fatal(err)
	}
}

// TestResourceManagerCommands: how many commands a signature is at the chip,
// with the key loaded and with it at a persistent handle.
func TestResourceManagerCommands(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, tt := range []struct {
		options            tpm.KeyOptions
		loaded, persistent int
	}{
		{tpm.KeyOptions{}, 4, 1},
		{tpm.KeyOptions{Algorithm: "ES384"}, 4, 1},
		{tpm.KeyOptions{PIN: true}, 6, 3},
		{tpm.KeyOptions{PCRs: []int{7}}, 12, 6},
		{tpm.KeyOptions{PCRs: []int{7}, PIN: true}, 18, 9},
	} {
		t.Run(fmt.Sprintf("%+v", tt.options), func(t *testing.T) {
			chip := tpmtest.Record(sim)
			r := newRig(t, tpmtest.NewResourceManager(t, chip), withPIN("1234"))
			count := func(want int) {
				t.Helper()
				key := open(t, r.Store, "key")
				sign(t, key)
				r.calls.Reset()
				chip.Reset()
				sign(t, key)
				if n := chip.Count(); n != want {
					t.Errorf("%d commands at the chip, want %d: %s", n, want, tpmtest.Names(chip.Codes()))
				}
			}
			create(t, r.Store, "key", tt.options)
			count(tt.loaded)
			if err := r.Persist(t.Context(), "key", 0x81010001); err != nil {
				t.Fatal(err)
			}
			count(tt.persistent)
			if err := r.Delete(t.Context(), "key"); err != nil {
				t.Fatal(err)
			}
		})
	}
}
