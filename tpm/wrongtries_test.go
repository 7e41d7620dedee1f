// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// foreignKey is a key that another program has made, and how its file describes it.
type foreignKey struct {
	password  string
	noDA      bool
	emptyAuth bool // as the file says
	parent    tpm2.TPMHandle
}

func (k foreignKey) flagIsWrong() bool { return k.emptyAuth != (k.password == "") }

// file makes the key in the TPM.
func (k foreignKey) file(t *testing.T, sim *tpmtest.Sim) []byte {
	t.Helper()
	parent := k.parent
	if parent == 0 || parent == tpm2.TPMRHOwner {
		template := tpm2.ECCSRKTemplate
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
		srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)}.Execute(sim)
		if err != nil {
			t.Fatal(err)
		}
		defer flush(t, sim, srk.ObjectHandle)
		k.parent, parent = tpm2.TPMRHOwner, srk.ObjectHandle
	}
	public, err := tpm2.ReadPublic{ObjectHandle: parent}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	template := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, NoDA: k.noDA,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
	}
	made, err := tpm2.Create{
		ParentHandle: tpm2.NamedHandle{Handle: parent, Name: public.Name},
		InSensitive: tpm2.TPM2BSensitiveCreate{
			Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte(k.password)}},
		},
		InPublic: tpm2.New2B(template),
	}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	return (&keyfile.TPMKey{
		Keytype: keyfile.OIDLoadableKey, EmptyAuth: k.emptyAuth, Parent: k.parent, Pubkey: made.OutPublic, Privkey: made.OutPrivate,
	}).Bytes()
}

// wrongTries returns the TPM's count, which it sets back.
func wrongTries(t *testing.T, sim *tpmtest.Sim) int {
	t.Helper()
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTLockoutCounter), PropertyCount: 1}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil || len(list.TPMProperty) != 1 {
		t.Fatal(err)
	}
	forgive(t, sim)
	return int(list.TPMProperty[0].Value)
}

// TestWrongTries counts wrong tries over every operation, every kind of key file, the
// right, a wrong and no PIN, an owner hierarchy with and without a password, and
// three processes one after the other.
func TestWrongTries(t *testing.T) {
	const right, wrong = "1234", "4321"
	sim := tpmtest.Simulator(t)
	files := map[string]foreignKey{}
	for _, password := range []string{"", right} {
		for _, noDA := range []bool{false, true} {
			for _, emptyAuth := range []bool{false, true} {
				files[fmt.Sprintf("password %q, noDA %t, emptyAuth %t", password, noDA, emptyAuth)] = foreignKey{password, noDA, emptyAuth, 0}
			}
		}
	}
	cases := 0
	for _, ownerAuth := range []string{"", "owner"} {
		sim.Manufacture()
		if ownerAuth != "" {
			defer sim.Manufacture()
		}
		contents := map[string][]byte{}
		for name, k := range files {
			contents[name] = k.file(t, sim)
		}
		for _, o := range kinds {
			r := newRig(t, sim, withPIN(right))
			create(t, r.Store, "key", o)
			text, err := os.ReadFile(filepath.Join(r.config.Dir, "key.pem"))
			if err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("ours %+v", o)
			contents[name] = text
			password := ""
			if o.PIN {
				password = right
			}
			files[name] = foreignKey{password, !o.PIN, !o.PIN, 0}
			r.Close()
		}
		if ownerAuth != "" {
			tpmtest.ChangeHierarchyAuth(t, sim, tpm2.TPMRHOwner, "", ownerAuth)
		}
		for name, text := range contents {
			for _, pin := range []string{right, wrong, ""} {
				for _, given := range []string{ownerAuth, "another"}[:1+len(ownerAuth)/5] {
					cases++
					k := files[name]
					must := pin == right && k.password == right || k.password == "" && (pin == "" || k.emptyAuth || k.noDA)
					counted, processes := useEverything(t, sim, text, pin, given, must && given == ownerAuth)
					limit := 0
					if !k.noDA && k.flagIsWrong() {
						limit = 1 // in the life of the file
					}
					if !k.noDA && pin == wrong && (k.password != "" || !k.emptyAuth) {
						limit += processes // each tries it once
					}
					if !k.noDA && pin == right && k.password == "" && !k.emptyAuth {
						limit = processes // there is no right one
					}
					if !k.noDA && pin == "" && !k.emptyAuth && k.password != "" && !strings.HasPrefix(name, "ours") {
						limit = 1 // another program's file may be wrong
					}
					if given != ownerAuth {
						limit = 0 // the key cannot be loaded
					}
					if counted > limit {
						t.Errorf("%s, PIN %q, owner's password %q given as %q: %d wrong tries, want %d at most", name, pin, ownerAuth, given, counted, limit)
					}
				}
			}
		}
	}
	t.Logf("%d cases", cases)
	if cases < 100 {
		t.Errorf("only %d cases", cases)
	}
}

// useEverything does all that can be done with a key, in three processes, and returns
// how many wrong tries the TPM has counted.
func useEverything(t *testing.T, sim *tpmtest.Sim, text []byte, pin, ownerAuth string, must bool) (counted, processes int) {
	t.Helper()
	ctx := t.Context()
	config := tpm.Config{Dial: sim.Dial, Dir: filepath.Join(t.TempDir(), "keys"), OwnerAuth: []byte(ownerAuth)}
	if pin != "" {
		withPIN(pin)(&config)
	}
	for processes = range 3 {
		tpm.ForgetRefusals()
		s, err := tpm.Open(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		if processes == 0 {
			if err := os.WriteFile(filepath.Join(config.Dir, "key.pem"), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		use := func() {
			key, err := s.Open(ctx, "key")
			if err != nil {
				if must {
					t.Errorf("Open: %v", err)
				}
				return
			}
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					if _, err := key.Sign(ctx, []byte("input")); must && err != nil {
						t.Errorf("Sign: %v", err)
					} else if err != nil && !errors.Is(err, keystore.ErrAuth) {
						t.Errorf("Sign: %v", err)
					}
				})
			}
			wg.Wait()
			_, err = attestable(t, key).Evidence(ctx, keystore.EvidenceRequest{Binding: binding})
			if must && err != nil {
				t.Errorf("Evidence: %v", err)
			}
		}
		use()
		_, _ = s.Describe(ctx, "key")
		persisted := s.Persist(ctx, "key", handle)
		use()
		if err := s.Unpersist(ctx, "key"); persisted == nil && err != nil {
			t.Error(err)
		}
		use()
		if processes == 2 && s.Delete(ctx, "key") != nil {
			t.Error("not deleted")
		}
		s.Close()
		counted += wrongTries(t, sim)
	}
	return counted, processes + 1
}

// TestWrongPINOnce: a PIN that was refused is not sent again, whoever asks and
// however many ask at once, and another one is.
func TestWrongPINOnce(t *testing.T) {
	sim := tpmtest.Simulator(t)
	var mu sync.Mutex
	pin, asked := "right", 0
	ask := func(c *tpm.Config) {
		c.PIN = func(context.Context, string) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return []byte(pin), nil
		}
	}
	r := newRig(t, sim, ask)
	create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
	pin, asked = "wrong", 0
	key := open(t, r.Store, "key")
	again := open(t, r.Store, "key")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := key.Sign(t.Context(), []byte("input"))
			wantError(t, err, keystore.ErrAuth, tpm2.TPMRCAuthFail)
		})
	}
	wg.Wait()
	_, err := again.Sign(t.Context(), []byte("input"))
	wantError(t, err, keystore.ErrAuth, tpm2.TPMRCAuthFail)
	_, err = attestable(t, key).Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
	wantError(t, err, keystore.ErrAuth, tpm2.TPMRCAuthFail)
	s := r.reopenAfter(t)
	_, err = open(t, s, "key").Sign(t.Context(), []byte("input"))
	wantError(t, err, keystore.ErrAuth, tpm2.TPMRCAuthFail)
	if n := wrongTries(t, sim); n != 1 {
		t.Errorf("%d wrong tries, want 1", n)
	}
	pin = "right"
	sign(t, key)
	sign(t, open(t, s, "key"))
	if n := wrongTries(t, sim); n != 0 {
		t.Errorf("%d wrong tries with the right PIN", n)
	}
}

// TestOwnerPasswordIsNoPIN: a password of the owner hierarchy that is set while a
// key is in use says nothing about the key.
func TestOwnerPasswordIsNoPIN(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, noDA := range []bool{false, true} {
		asked := 0
		r := newRig(t, sim, func(c *tpm.Config) {
			c.PIN = func(context.Context, string) ([]byte, error) {
				asked++
				return []byte("1234"), nil
			}
		})
		text := foreignKey{"", noDA, true, 0}.file(t, sim)
		if err := os.WriteFile(filepath.Join(r.config.Dir, "key.pem"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		key := open(t, r.Store, "key")
		sign(t, key)
		tpmtest.ChangeHierarchyAuth(t, sim, tpm2.TPMRHOwner, "", "owner")
		sim.Reset()
		for range 4 {
			_, err := key.Sign(t.Context(), []byte("input"))
			if wantError(t, err, keystore.ErrAuth, tpm2.TPMRCBadAuth); !strings.Contains(err.Error(), "Config.OwnerAuth") {
				t.Errorf("%q does not say whose password is wrong", err)
			}
		}
		tpmtest.ChangeHierarchyAuth(t, sim, tpm2.TPMRHOwner, "owner", "")
		sign(t, key)
		prove(t, key)
		if n := wrongTries(t, sim); n != 0 || asked != 0 {
			t.Errorf("%d wrong tries were counted, and the PIN was asked for %d times", n, asked)
		}
		r.Close()
	}
}

// TestParentWithPassword: a persistent parent that has a password is named as what
// is wrong, and costs one wrong try in the life of a process.
func TestParentWithPassword(t *testing.T) {
	sim := tpmtest.Simulator(t)
	tpm.ForgetRefusals()
	r, o := besides(t, sim, withPIN("1234"))
	o.tool("tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc", "-p", "parent", "-c", o.file("srk"))
	o.tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", o.file("srk"), "0x81000001")
	o.tool("tpm2_create", "-Q", "-C", "0x81000001", "-P", "parent", "-G", "ecc256:ecdsa-sha256", "-a", plain, "-u", o.file("pub"), "-r", o.file("priv"))
	o.tool("tpm2_encodeobject", "-C", "0x81000001", "-P", "parent", "-u", o.file("pub"), "-r", o.file("priv"), "-o", filepath.Join(r.config.Dir, "key.pem"))
	if err := os.Chmod(filepath.Join(r.config.Dir, "key.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		s := r.reopen(t)
		_, err := s.Open(t.Context(), "key")
		if wantError(t, err, keystore.ErrAuth); !strings.Contains(err.Error(), "the key's parent has a password") || strings.Contains(err.Error(), "PIN") {
			t.Errorf("%q does not say what is wrong", err)
		}
		s.Close()
	}
	if n := wrongTries(t, sim); n != 1 {
		t.Errorf("%d wrong tries, want 1", n)
	}
}
