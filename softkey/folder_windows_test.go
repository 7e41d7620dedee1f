// SPDX-License-Identifier: Apache-2.0

package softkey_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/windows"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

// TestWindowsNames: each allowed name is a key of its own, and is listed as it is.
func TestWindowsNames(t *testing.T) {
	dir := newDir(t)
	s := openDir(t, dir)
	long := strings.Repeat("AAb", 43)[:128]
	names := []string{
		"b", "B", "key", "Key", "KEY", "kEY", "nul", "NUL", "Nul", "nul.pem", "NUL.pem", "con", "aux", "prn", "com1", "COM1", "lpt1.x", "LPT1.x", "com0",
		"a", "a.", "a..", "A.", "a.pem", "a.PEM", strings.ToLower(long), long, strings.ToUpper(long), "conin", "-", "_", "_.",
	}
	thumbprints := map[string]string{}
	for _, name := range names {
		key, err := s.Create(t.Context(), name)
		if err != nil {
			t.Fatalf("Create(%q): %v", name, err)
		}
		if _, err := s.Create(t.Context(), name); !errors.Is(err, keystore.ErrExists) {
			t.Errorf("Create(%q) again: %v", name, err)
		}
		thumbprints[name] = thumbprint(t, key)
	}
	listed, err := openDir(t, dir).List(t.Context())
	slices.Sort(names)
	if err != nil || !slices.Equal(listed, names) {
		t.Errorf("List = %q, %v, want %q", listed, err, names)
	}
	for _, name := range names {
		key, err := s.Open(t.Context(), name)
		if err != nil || thumbprint(t, key) != thumbprints[name] {
			t.Errorf("Open(%q): another key, or %v", name, err)
		}
	}
	for i, name := range names {
		if err := s.Delete(t.Context(), name); err != nil {
			t.Errorf("Delete(%q): %v", name, err)
		}
		if listed, err := s.List(t.Context()); err != nil || len(listed) != len(names)-i-1 {
			t.Errorf("after Delete(%q), %d are there, %v", name, len(listed), err)
		}
	}
}

// TestWindowsOperatorsFile: a file that somebody puts there is a key, whatever the
// case of its letters.
func TestWindowsOperatorsFile(t *testing.T) {
	dir := newDir(t)
	write(t, dir, "Device.PEM", read(t, "testdata", "openssl-P-256.pem"))
	s := openDir(t, dir)
	if names, err := s.List(t.Context()); err != nil || !slices.Equal(names, []string{"device"}) {
		t.Errorf("List = %q, %v, want device", names, err)
	}
	if _, err := s.Open(t.Context(), "device"); err != nil {
		t.Error(err)
	}
	if _, err := s.Open(t.Context(), "Device"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("Open of a key that is not there: %v", err)
	}
}

// TestWindowsLongPath: a folder may be deeper than 260 characters.
func TestWindowsLongPath(t *testing.T) {
	dir := newDir(t)
	for range 6 {
		dir = filepath.Join(dir, strings.Repeat("d", 60))
	}
	s := openDir(t, dir)
	name := strings.Repeat("AAb", 43)[:128]
	if _, err := s.Create(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if names, err := s.List(t.Context()); err != nil || !slices.Equal(names, []string{name}) {
		t.Errorf("List = %q, %v", names, err)
	}
	if err := s.Delete(t.Context(), name); err != nil {
		t.Error(err)
	}
}

func setList(t *testing.T, path, entry string) {
	t.Helper()
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	descriptor, err := windows.SecurityDescriptorFromString("D:P(A;;FA;;;SY)(A;;FA;;;" + user.User.Sid.String() + ")" + entry)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := descriptor.DACL()
	if err != nil {
		t.Fatal(err)
	}
	if err := windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, list, nil); err != nil {
		t.Fatal(err)
	}
}

// TestWindowsLists: a key that others may read is not used, and nothing is put into
// a folder that they may write to.
func TestWindowsLists(t *testing.T) {
	dir := newDir(t)
	s := openDir(t, dir)
	if _, err := s.Create(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "key.pem")
	for _, entry := range []string{"(A;;FR;;;WD)", "(A;;FA;;;WD)", "(A;;FW;;;WD)"} {
		setList(t, file, entry)
		_, err := s.Open(t.Context(), "key")
		if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), `icacls "`+file+`"`) {
			t.Errorf("Open with %s = %v, want ErrUnavailable with advice", entry, err)
		}
		if _, err := keystore.OpenOrCreate(t.Context(), s, "key"); err == nil {
			t.Errorf("OpenOrCreate with %s succeeded", entry)
		}
	}
	setList(t, file, "")
	if _, err := s.Open(t.Context(), "key"); err != nil {
		t.Error(err)
	}
	setList(t, dir, "(A;;FA;;;WD)")
	if _, err := softkey.OpenDir(dir); !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), `icacls "`+dir+`"`) {
		t.Errorf("OpenDir of an open folder = %v, want ErrUnavailable with advice", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v: want key.pem alone", entries, err)
	}
	setList(t, dir, "(A;;FR;;;WD)") // may be seen by others, as on other systems
	if _, err := openDir(t, dir).Create(t.Context(), "other"); err != nil {
		t.Error(err)
	}
}
