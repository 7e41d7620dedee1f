// SPDX-License-Identifier: Apache-2.0

package keystoretest

import (
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/instancekey/instancekey/keystore"
)

var storeChecks = append([]storeCheck{
	{"InvalidNames", checkInvalidNames},
	{"ValidNames", checkValidNames},
	{"CreateExisting", checkCreateExisting},
	{"OpenMissing", checkOpenMissing},
	{"Delete", checkDelete},
	{"List", checkList},
	{"OpenOrCreate", checkOpenOrCreate},
	{"OpenOrCreateAtOnce", checkOpenOrCreateAtOnce},
	{"SameKey", checkSameKey},
	{"StoreShowsNoSecret", checkStoreShowsNoSecret},
	{"Close", checkClose},
}, onCreatedKey(keyChecks)...)

var restartChecks = []storeCheck{
	{"Restart", checkRestart},
}

// onCreatedKey runs key checks on a key that the Store made.
func onCreatedKey(checks []keyCheck) []storeCheck {
	var out []storeCheck
	for _, c := range checks {
		out = append(out, storeCheck{"Key/" + c.name, func(t tb, newStore func() keystore.Store) {
			c.run(t, create(t, newStore(), "key"))
		}})
	}
	return out
}

var invalidNames = []string{
	"", ".", "..", ".a", ".a.pem", "a/b", "/a", "../a", "a/../b", `a\b`, `..\a`, "a\x00", "a\x00b", "a\n",
	"a b", " a", "a:b", "a*", "~a", "å", "a\xff", strings.Repeat("a", 129), strings.Repeat("a", 1<<16),
}

func checkInvalidNames(t tb, newStore func() keystore.Store) {
	s := newStore()
	create(t, s, "a")
	create(t, s, "b")
	for _, name := range invalidNames {
		short := name[:min(len(name), 140)]
		_, err := s.Create(t.Context(), name)
		if err == nil || errors.Is(err, keystore.ErrExists) {
			t.Errorf("Create(%q) = %v, want the error of CheckName", short, err)
		}
		// ErrNotFound would invite the caller to create the key.
		_, err = s.Open(t.Context(), name)
		if err == nil || errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("Open(%q) = %v, want the error of CheckName", short, err)
		}
		if err := s.Delete(t.Context(), name); err == nil {
			t.Errorf("Delete(%q) = nil, want the error of CheckName", short)
		}
	}
	wantList(t, s, "a", "b")
}

func checkValidNames(t tb, newStore func() keystore.Store) {
	s := newStore()
	names := []string{
		"a", "A1", "a.", "a..b", "a.pem", "a.pem.pem", "_", "-", "--", "0", "key-1_2.x", strings.Repeat("n", 128),
	}
	made := make(map[string]string) // by thumbprint
	for _, name := range names {
		jkt := thumbprint(t, create(t, s, name))
		if other, ok := made[jkt]; ok {
			t.Errorf("%q and %q are one key", name, other)
		}
		made[jkt] = name
	}
	for _, name := range names {
		if jkt := thumbprint(t, open(t, s, name)); made[jkt] != name {
			t.Errorf("Open(%q) found the key of %q", name, made[jkt])
		}
	}
	slices.Sort(names)
	wantList(t, s, names...)
}

func checkCreateExisting(t tb, newStore func() keystore.Store) {
	s := newStore()
	before := thumbprint(t, create(t, s, "key"))
	if _, err := s.Create(t.Context(), "key"); !errors.Is(err, keystore.ErrExists) {
		t.Errorf("Create of an existing key = %v, want ErrExists", err)
	}
	if after := thumbprint(t, open(t, s, "key")); after != before {
		t.Errorf("Create of an existing key replaced it")
	}
	wantList(t, s, "key")
}

func checkOpenMissing(t tb, newStore func() keystore.Store) {
	s := newStore()
	for range 2 { // also the second time: Open creates nothing
		_, err := s.Open(t.Context(), "key")
		if !errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrKeyLost) {
			t.Errorf("Open of a key that never was = %v, want ErrNotFound alone", err)
		}
	}
	wantList(t, s)
}

func checkDelete(t tb, newStore func() keystore.Store) {
	s := newStore()
	if err := s.Delete(t.Context(), "key"); err != nil {
		t.Errorf("Delete of a name that holds no key = %v, want nil", err)
	}
	before := thumbprint(t, create(t, s, "key"))
	other := thumbprint(t, create(t, s, "other"))
	for range 2 {
		if err := s.Delete(t.Context(), "key"); err != nil {
			t.Errorf("Delete = %v, want nil", err)
		}
		if _, err := s.Open(t.Context(), "key"); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("Open of a deleted key = %v, want ErrNotFound", err)
		}
		wantList(t, s, "other")
	}
	if thumbprint(t, create(t, s, "key")) == before {
		t.Errorf("Create made a deleted key again")
	}
	if thumbprint(t, open(t, s, "other")) != other {
		t.Errorf("Delete changed another key")
	}
}

func checkList(t tb, newStore func() keystore.Store) {
	s := newStore()
	wantList(t, s)
	// In the order of file names a-b.pem and a.b.pem stand before a.pem.
	for _, name := range []string{"b", "a-b", "a", "B", "a.b", "10", "9"} {
		create(t, s, name)
	}
	wantList(t, s, "10", "9", "B", "a", "a-b", "a.b", "b")
}

func wantList(t tb, s keystore.Store, want ...string) {
	t.Helper()
	got, err := s.List(t.Context())
	if err != nil {
		t.Errorf("List: %v", err)
	} else if !slices.Equal(got, want) {
		t.Errorf("List = %.200q, want %.200q", got, want)
	}
}

func checkOpenOrCreate(t tb, newStore func() keystore.Store) {
	s := newStore()
	first, err := keystore.OpenOrCreate(t.Context(), s, "key")
	if err != nil {
		t.Fatalf("OpenOrCreate of a key that never was: %v", err)
	}
	second, err := keystore.OpenOrCreate(t.Context(), s, "key")
	if err != nil {
		t.Fatalf("OpenOrCreate of an existing key: %v", err)
	}
	if thumbprint(t, first) != thumbprint(t, second) {
		t.Errorf("OpenOrCreate of an existing key made another")
	}
}

const callersAtOnce = 8

func checkOpenOrCreateAtOnce(t tb, newStore func() keystore.Store) {
	s := newStore()
	var keys [callersAtOnce]keystore.Key
	var errs [callersAtOnce]error
	var wg sync.WaitGroup
	for i := range callersAtOnce {
		wg.Go(func() { keys[i], errs[i] = keystore.OpenOrCreate(t.Context(), s, "at-once") })
	}
	wg.Wait()
	stored := thumbprint(t, open(t, s, "at-once"))
	for i, key := range keys {
		if errs[i] != nil {
			t.Errorf("OpenOrCreate, %d callers at once: %v", callersAtOnce, errs[i])
		} else if thumbprint(t, key) != stored {
			t.Errorf("OpenOrCreate, %d callers at once: a caller has another key than the stored one", callersAtOnce)
		}
	}
	wantList(t, s, "at-once")
}

func checkSameKey(t tb, newStore func() keystore.Store) {
	s := newStore()
	wantSameKey(t, create(t, s, "key"), open(t, s, "key"))
}

// wantSameKey checks that b is a in every respect.
func wantSameKey(t tb, a, b keystore.Key) {
	t.Helper()
	if a.Algorithm() != b.Algorithm() {
		t.Errorf("the key's algorithm was %s, and is %s when opened", a.Algorithm(), b.Algorithm())
	}
	if thumbprint(t, a) != thumbprint(t, b) {
		t.Errorf("another key was opened than created")
	}
	if err := verify(a, sign(t, b, "opened")); err != nil {
		t.Errorf("the opened key's signature does not verify under the created key: %v", err)
	}
}

func checkRestart(t tb, newStore func() keystore.Store) {
	s := newStore()
	created := create(t, s, "key")
	before := sign(t, created, "before")
	create(t, s, "deleted")
	if err := s.Delete(t.Context(), "deleted"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	giveUp(t, s)

	s = newStore()
	wantList(t, s, "key")
	opened, err := s.Open(t.Context(), "key")
	if err != nil {
		t.Fatalf("Open after a restart: %v", err)
	}
	if created.Algorithm() != opened.Algorithm() || thumbprint(t, created) != thumbprint(t, opened) {
		t.Errorf("another key was opened after a restart than created before")
	}
	if err := verify(opened, before); err != nil {
		t.Errorf("a signature made before the restart does not verify under the key opened after: %v", err)
	}
	if err := verify(created, sign(t, opened, "after")); err != nil {
		t.Errorf("a signature made after a restart does not verify under the key created before: %v", err)
	}
	if _, err := s.Open(t.Context(), "deleted"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("Open of a deleted key after a restart = %v, want ErrNotFound", err)
	}
	if _, err := s.Create(t.Context(), "key"); !errors.Is(err, keystore.ErrExists) {
		t.Errorf("Create of an existing key after a restart = %v, want ErrExists", err)
	}
}

func checkClose(t tb, newStore func() keystore.Store) {
	s := newStore()
	closer, ok := s.(io.Closer)
	if !ok {
		return
	}
	key := create(t, s, "key")
	for range 2 {
		if err := closer.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	_, signErr := key.Sign(t.Context(), []byte("input"))
	_, createErr := s.Create(t.Context(), "other")
	_, openErr := s.Open(t.Context(), "key")
	_, listErr := s.List(t.Context())
	for method, err := range map[string]error{
		"Sign": signErr, "Create": createErr, "Open": openErr, "List": listErr, "Delete": s.Delete(t.Context(), "key"),
	} {
		if !errors.Is(err, keystore.ErrClosed) {
			t.Errorf("%s after Close = %v, want ErrClosed", method, err)
		}
	}
}
