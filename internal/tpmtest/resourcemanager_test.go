// SPDX-License-Identifier: Apache-2.0

package tpmtest_test

import (
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// managed is a resource manager on a simulator, and what reaches the chip.
func managed(t *testing.T) (*tpmtest.ResourceManager, *tpmtest.Recorder, *tpmtest.Sim) {
	t.Helper()
	sim := tpmtest.Simulator(t)
	chip := tpmtest.Record(sim)
	rm := tpmtest.NewResourceManager(t, chip)
	chip.Reset()
	return rm, chip, sim
}

func openFile(t *testing.T, rm *tpmtest.ResourceManager) transport.TPMCloser {
	t.Helper()
	file, err := rm.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func newSession(tpm transport.TPM) (tpm2.Session, func() error, error) {
	return tpm2.HMACSession(tpm, tpm2.TPMAlgSHA256, 16)
}

// What a signature costs at the chip, by what the file has open.
func TestResourceManagerCosts(t *testing.T) {
	rm, chip, _ := managed(t)
	setup := openFile(t, rm)
	stored := create(t, setup)
	persist(t, setup, stored, persistent)
	setup.Close()

	const (
		load  = tpm2.TPMCCContextLoad
		save  = tpm2.TPMCCContextSave
		flush = tpm2.TPMCCFlushContext
		start = tpm2.TPMCCStartAuthSession
		signs = tpm2.TPMCCSign
	)
	tests := []struct {
		name    string
		loaded  bool // the key; else it is persistent
		session string
		want    []tpm2.TPMCC
	}{
		{"persistent key", false, "", []tpm2.TPMCC{signs}},
		{"loaded key", true, "", []tpm2.TPMCC{load, signs, save, flush}},
		{"persistent key, reused session", false, "reused", []tpm2.TPMCC{load, signs, save}},
		{"loaded key, reused session", true, "reused", []tpm2.TPMCC{load, load, signs, save, flush, save}},
		{"persistent key, new session", false, "new", []tpm2.TPMCC{start, save, load, signs, save}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := openFile(t, rm)
			defer file.Close()
			handle := tpm2.TPMHandle(persistent)
			if tt.loaded {
				handle = create(t, file).ObjectHandle
			}
			auth := tpm2.PasswordAuth(nil)
			switch tt.session {
			case "new":
				auth = tpm2.HMAC(tpm2.TPMAlgSHA256, 16)
			case "reused":
				session, _, err := newSession(file)
				if err != nil {
					t.Fatal(err)
				}
				auth = session
			}
			for range 2 {
				chip.Reset()
				if err := sign(file, handle, stored.Name, auth); err != nil {
					t.Fatal(err)
				}
				chip.Want(t, tt.want...)
			}
		})
	}
	tpmtest.NoLeaks(t, tpmtest.Dial(t, chip))
}

func TestResourceManagerObjects(t *testing.T) {
	for _, tt := range []struct {
		name  string
		roomy bool
		full  error
	}{
		{"three slots", false, tpm2.TPMRCObjectMemory},
		{"roomy", true, syscall.ENOMEM},
	} {
		t.Run(tt.name, func(t *testing.T) { testObjects(t, tt.roomy, tt.full) })
	}
}

func testObjects(t *testing.T, roomy bool, full error) {
	rm, chip, _ := managed(t)
	rm.Roomy = roomy
	file := openFile(t, rm)
	var keys []*tpm2.CreatePrimaryResponse
	for i := range 3 {
		key := create(t, file)
		if want := 0x80FFFFFF - tpm2.TPMHandle(i); key.ObjectHandle != want {
			t.Errorf("object %d has handle %#x, want %#x", i, key.ObjectHandle, want)
		}
		keys = append(keys, key)
	}
	if _, err := tryCreate(file); !errors.Is(err, full) {
		t.Errorf("fourth object: %v", err)
	}
	for i, key := range keys {
		if err := signKey(file, key); err != nil {
			t.Errorf("object %d after the fourth was refused: %v", i, err)
		}
	}
	want := []tpm2.TPMHandle{0x80FFFFFF, 0x80FFFFFE, 0x80FFFFFD}
	if got := tpmtest.Handles(t, file, tpm2.TPMHTTransient); !slices.Equal(got, want) {
		t.Errorf("handles %#x, want %#x", got, want)
	}

	flush(t, file, keys[1].ObjectHandle)
	if err := signKey(file, keys[1]); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("flushed object: %v", err)
	}
	if again := create(t, file); again.ObjectHandle != keys[1].ObjectHandle {
		t.Errorf("the freed slot's handle %#x is not used, but %#x", keys[1].ObjectHandle, again.ObjectHandle)
	}
	tpmtest.NoLeaks(t, tpmtest.Dial(t, chip))
	file.Close()
}

func TestResourceManagerSessions(t *testing.T) {
	rm, chip, _ := managed(t)
	rm.Roomy = true
	file := openFile(t, rm)
	key := create(t, file)
	var sessions []tpm2.Session
	for range 3 {
		session, _, err := newSession(file)
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, session)
	}
	for i, session := range sessions {
		for range 2 {
			if err := sign(file, key.ObjectHandle, key.Name, session); err != nil {
				t.Errorf("session %d: %v", i, err)
			}
		}
	}
	if saved := tpmtest.Handles(t, tpmtest.Dial(t, chip), tpm2.TPMHTPolicySession); len(saved) != 3 {
		t.Errorf("saved sessions %#x, want 3", saved)
	}

	// The fourth takes the other three with it.
	if _, _, err := newSession(file); !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("fourth session: %v", err)
	}
	tpmtest.NoLeaks(t, tpmtest.Dial(t, chip))
	for i, session := range sessions {
		if err := sign(file, key.ObjectHandle, key.Name, session); !isTPMError(err) {
			t.Errorf("lost session %d: %v", i, err)
		}
	}

	if err := signKey(file, key); err != nil {
		t.Errorf("object after sessions were lost: %v", err)
	}
	if _, _, err := newSession(file); err != nil {
		t.Errorf("new session after the others were lost: %v", err)
	}
	file.Close()
	tpmtest.NoLeaks(t, tpmtest.Dial(t, chip))
}

func isTPMError(err error) bool {
	var rc tpm2.TPMRC
	return errors.As(err, &rc)
}

func TestResourceManagerSessionFlushed(t *testing.T) {
	rm, chip, _ := managed(t)
	file := openFile(t, rm)
	defer file.Close()
	_, end, err := newSession(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	chip.Reset()
	if err := random(file); err != nil {
		t.Fatal(err)
	}
	chip.Want(t, tpm2.TPMCCGetRandom)
}

func TestResourceManagerFiles(t *testing.T) {
	rm, chip, _ := managed(t)
	a, b := openFile(t, rm), openFile(t, rm)
	key := create(t, a)
	if _, _, err := newSession(a); err != nil {
		t.Fatal(err)
	}

	if got := tpmtest.Handles(t, b, tpm2.TPMHTTransient); len(got) != 0 {
		t.Errorf("another file's objects are seen: %#x", got)
	}
	raw := tpmtest.Dial(t, chip)
	unmanaged := create(t, raw)
	if got := tpmtest.Handles(t, b, tpm2.TPMHTTransient); len(got) != 0 {
		t.Errorf("an object of nobody's is seen: %#x", got)
	}
	flush(t, raw, unmanaged.ObjectHandle)
	if err := signKey(b, key); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("another file's object: %v", err)
	}
	if own := create(t, b); own.ObjectHandle != key.ObjectHandle {
		t.Errorf("handle %#x in the second file, %#x in the first", own.ObjectHandle, key.ObjectHandle)
	}

	chip.Reset()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	chip.Want(t, tpm2.TPMCCFlushContext) // the session; the object is in a saved context only
	tpmtest.NoLeaks(t, tpmtest.Dial(t, chip))
	if err := random(a); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed file: %v", err)
	}
	if err := a.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
	if err := random(b); err != nil {
		t.Errorf("other file: %v", err)
	}
	b.Close()
}
