// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// TestDeleteDamaged: as long as something is at the persistent handle that a damaged
// file names, the file stays and says so. Nobody would know of the key otherwise.
func TestDeleteDamaged(t *testing.T) {
	sim := tpmtest.Simulator(t)
	damages := map[string]func(text string) string{
		"key":        func(text string) string { return strings.Replace(text, "\nM", "\n!", 1) },
		"key torn":   func(text string) string { return text[:100] + "\n" + text[strings.Index(text, "-----BEGIN TPM2"):] },
		"no key":     func(text string) string { return text[strings.Index(text, "-----BEGIN TPM2"):] },
		"Name":       func(text string) string { return strings.Replace(text, "NAME-----\n", "NAME-----\n!", 1) },
		"torn after": func(text string) string { return text + "-----BEGIN TSS2 PRIVATE KEY-----\n" },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, sim)
			create(t, r.Store, "key", tpm.KeyOptions{})
			if err := r.Persist(t.Context(), "key", handle); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(r.config.Dir, "key.pem")
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			put(t, r, "key", []byte(damage(string(whole))))
			err = r.Delete(t.Context(), "key")
			if wantError(t, err, keystore.ErrUnavailable); !strings.Contains(err.Error(), "tpm2_evictcontrol -C o -c 0x81010f01") {
				t.Errorf("%q does not say what to do", err)
			}
			disableOwner(t, sim) // all persistent keys seem to be gone
			wantError(t, r.Delete(t.Context(), "key"), keystore.ErrUnavailable)
			sim.Reset()
			if now, err := os.ReadFile(path); err != nil || string(now) != damage(string(whole)) {
				t.Errorf("the file was changed: %v", err)
			}
			cleanUp(t, sim)
			if err := r.Delete(t.Context(), "key"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDeleteNoPlainFile: nor does a link go, or a file that is no key's for its size, while
// something is at the persistent handle that is named there.
func TestDeleteNoPlainFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("making symbolic links needs a privilege there")
	}
	sim := tpmtest.Simulator(t)
	_, given := wrap(t, sim, elliptic.P256())
	const handleBlock = "-----BEGIN TPM2 PERSISTENT HANDLE-----\n"
	spaces := func(n int) []byte { return bytes.Repeat([]byte(" \n"), n/2) }
	write := func(around func(whole []byte) []byte) func(path string, whole []byte) error {
		return func(path string, whole []byte) error { return os.WriteFile(path, around(whole), 0o600) }
	}
	link := func(more ...string) func(path string, whole []byte) error {
		return func(path string, whole []byte) error {
			last := filepath.Join(filepath.Dir(filepath.Dir(path)), "elsewhere")
			err := errors.Join(os.WriteFile(last, whole, 0o600), os.Remove(path))
			for _, next := range more {
				next = filepath.Join(filepath.Dir(last), next)
				err = errors.Join(err, os.Symlink(last, next))
				last = next
			}
			return errors.Join(err, os.Symlink(last, path))
		}
	}
	for name, test := range map[string]struct {
		change func(path string, whole []byte) error
		stays  string // what the error says; "": the file goes
	}{
		"link":                {link(), "link"},
		"link to a link":      {link("one", "two"), "link"},
		"link to a huge file": {func(path string, whole []byte) error { return link()(path, append(spaces(1<<20), whole...)) }, "link"},
		"too large":           {write(func(whole []byte) []byte { return append(whole, spaces(40<<10)...) }), "too large"},
		"far too large":       {write(func(whole []byte) []byte { return append(spaces(3<<20), whole...) }), "too large"},
		"at a limit of reading": {write(func(whole []byte) []byte {
			return append(spaces(64<<10-bytes.Index(whole, []byte(handleBlock))-20), whole...)
		}), "too large"},
		"before a limit": {write(func(whole []byte) []byte {
			return append(spaces(64<<10-bytes.Index(whole, []byte(handleBlock))-60), whole...)
		}), "too large"},
		"many in one": {write(func(whole []byte) []byte { return bytes.Repeat(whole, 100) }), "too large"},
		"another handle first": {write(func(whole []byte) []byte {
			return append([]byte(handleBlock+"gQEPAg==\n-----END TPM2 PERSISTENT HANDLE-----\nTORN"), whole[200:]...)
		}), "damaged"},
		"torn in the handle":     {write(func(whole []byte) []byte { return whole[:bytes.Index(whole, []byte(handleBlock))+len(handleBlock)+3] }), "cannot be read"},
		"torn in its first line": {write(func(whole []byte) []byte { return whole[:bytes.Index(whole, []byte(handleBlock))+20] }), "cannot be read"},
		"handle damaged": {write(func(whole []byte) []byte {
			return bytes.Replace(whole, []byte(handleBlock), []byte(handleBlock+"!"), 1)
		}), "cannot be read"},
		"no handle for a key":     {write(func(whole []byte) []byte { return bytes.Replace(whole, []byte("gQEPAQ=="), []byte("AQEPAQ=="), 1) }), "cannot be read"},
		"link to nothing":         {func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Symlink("nothing", path)) }, ""},
		"link to itself":          {func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Symlink("key.pem", path)) }, ""},
		"link to a folder":        {func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Symlink("..", path)) }, ""},
		"link to a device":        {func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Symlink("/dev/zero", path)) }, ""},
		"folder":                  {func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, ""},
		"too large, of no handle": {write(func([]byte) []byte { return spaces(1 << 20) }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, sim)
			create(t, r.Store, "key", tpm.KeyOptions{})
			if err := r.Persist(t.Context(), "key", handle); err != nil {
				t.Fatal(err)
			}
			defer cleanUp(t, sim)
			path := filepath.Join(r.config.Dir, "key.pem")
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := test.change(path, whole); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			// What only a plain file has is told in the same way, and changes nothing.
			_, err = r.Open(t.Context(), "key")
			wantError(t, err, keystore.ErrCorrupt)
			wantError(t, r.Persist(t.Context(), "key", handle+1), keystore.ErrCorrupt)
			wantError(t, r.Unpersist(t.Context(), "key"), keystore.ErrCorrupt)
			_, err = r.Create(t.Context(), "key")
			wantError(t, err, keystore.ErrExists)
			_, err = r.Import(t.Context(), "key", given)
			wantError(t, err, keystore.ErrExists)
			if names, err := r.List(t.Context()); err != nil || !slices.Contains(names, "key") {
				t.Errorf("List: %q, %v", names, err)
			}

			err = r.Delete(t.Context(), "key")
			now, statErr := os.Lstat(path)
			if test.stays == "" {
				if err != nil || !errors.Is(statErr, fs.ErrNotExist) {
					t.Errorf("Delete: %v; then %v", err, statErr)
				}
				return
			}
			if wantError(t, err, keystore.ErrUnavailable); !strings.Contains(err.Error(), test.stays) || !strings.Contains(err.Error(), "tpm2_evictcontrol -C o -c ") {
				t.Errorf("%q does not say %q and what to do", err, test.stays)
			}
			if statErr != nil || !os.SameFile(before, now) || len(persistent(t, sim)) != 1 {
				t.Errorf("%v, %d persistent keys: want both as they were", statErr, len(persistent(t, sim)))
			}
			if test.stays == "cannot be read" {
				return
			}
			cleanUp(t, sim)
			if err := r.Delete(t.Context(), "key"); err != nil {
				t.Error(err)
			}
			if name == "link" {
				if left, err := os.ReadFile(filepath.Join(filepath.Dir(r.config.Dir), "elsewhere")); err != nil || !bytes.Equal(left, whole) {
					t.Errorf("what it has led to: %v", err)
				}
			}
		})
	}
}

// TestDisabledEndorsement: while the endorsement hierarchy is disabled, a parent in it
// seems to be gone. It is not, and no bus is hostile.
func TestDisabledEndorsement(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	const at = tpm2.TPMHandle(0x81010005)
	parent, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(eccPrimary)}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	named := tpm2.NamedHandle{Handle: parent.ObjectHandle, Name: parent.Name}
	if _, err := (tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: named, PersistentHandle: at}).Execute(sim); err != nil {
		t.Fatal(err)
	}
	flush(t, sim, parent.ObjectHandle)
	defer cleanUp(t, sim)
	made, err := tpm2.Create{ParentHandle: tpm2.NamedHandle{Handle: at, Name: parent.Name}, InPublic: tpm2.New2B(signingTemplate())}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	put(t, r, "key", encodeKey(made, binary.BigEndian.AppendUint32([]byte{0}, uint32(at))))
	if err := r.Persist(t.Context(), "key", handle); err != nil {
		t.Fatal(err)
	}
	put(t, r, "other", encodeKey(made, binary.BigEndian.AppendUint32([]byte{0}, uint32(at))))
	endorsement := binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMRHEndorsement))
	rawCommand(t, sim, tpm2.TPMCCHierarchyControl, tpm2.TPMRHEndorsement, append(endorsement, 0)...)
	for what, do := range map[string]func() error{
		"Open":   func() error { _, err := r.Open(t.Context(), "other"); return err },
		"Delete": func() error { return r.Delete(t.Context(), "key") },
	} {
		err := do()
		if wantError(t, err, keystore.ErrUnavailable); !strings.Contains(err.Error(), "endorsement hierarchy is disabled") {
			t.Errorf("%s: %q does not say what is wrong", what, err)
		}
	}
	sim.Reset()
	sign(t, open(t, r.Store, "other"))
	if err := r.Delete(t.Context(), "key"); err != nil {
		t.Error(err)
	}
}

// TestHandlesInTornFile: wherever a file is torn from its handle on, the handle is found or
// known to be missing, and a text before it, of whatever length, changes nothing.
func TestHandlesInTornFile(t *testing.T) {
	whole := "# a key\n" + string(pem.EncodeToMemory(&pem.Block{Type: "TPM2 PERSISTENT HANDLE", Bytes: []byte{0x81, 1, 0x0f, 1}}))
	sure := strings.Index(whole, "-----BEGIN ") + len("-----BEGIN ")
	for end := range len(whole) + 1 {
		handles, legible, err := keyfile.Handles(iotest.OneByteReader(strings.NewReader(whole[:end])))
		found := slices.Equal(handles, []tpm2.TPMHandle{handle})
		if err != nil || len(handles) > 1 || end > sure && found == !legible || end <= sure && (found || !legible) {
			t.Errorf("%q: %x, legible %t, %v", whole[:end], handles, legible, err)
		}
	}
	for before := 64<<10 - len(whole) - 2; before < 64<<10+2; before++ {
		handles, legible, err := keyfile.Handles(strings.NewReader(strings.Repeat("\n", before) + whole + strings.Repeat("\n", 2<<10)))
		if err != nil || !legible || !slices.Equal(handles, []tpm2.TPMHandle{handle}) {
			t.Fatalf("after %d bytes: %x, legible %t, %v", before, handles, legible, err)
		}
	}
	if _, _, err := keyfile.Handles(io.MultiReader(strings.NewReader(whole), iotest.ErrReader(fs.ErrPermission))); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}
