// SPDX-License-Identifier: Apache-2.0

package privatefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

func list(t *testing.T, text string) *windows.ACL {
	t.Helper()
	descriptor, err := windows.SecurityDescriptorFromString(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	acl, _, err := descriptor.DACL()
	if err != nil {
		t.Fatal(err)
	}
	return acl
}

func setList(t *testing.T, path, text string) {
	t.Helper()
	if err := windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION,
		nil, nil, list(t, text), nil); err != nil {
		t.Fatal(err)
	}
}

// TestStrangers: what each kind of entry means.
func TestStrangers(t *testing.T) {
	const users = "S-1-5-32-545"
	trusted := []string{"S-1-5-21-1-2-3-1001", sidSystem, sidAdministrators}
	for text, want := range map[string]struct{ any, writing string }{
		"D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;S-1-5-21-1-2-3-1001)": {"", ""},
		"D:(A;ID;FA;;;SY)(A;ID;FA;;;S-1-5-21-1-2-3-1001)":          {"", ""}, // inherited, and private all the same
		"D:(A;ID;FR;;;BU)":                {users, ""},
		"D:(A;ID;0x1200a9;;;BU)":          {users, ""}, // read and execute
		"D:(A;;FX;;;BU)":                  {users, ""},
		"D:(A;;GR;;;BU)":                  {users, ""},
		"D:(A;;FW;;;BU)":                  {users, users},
		"D:(A;;GA;;;BU)":                  {users, users},
		"D:(A;;GW;;;BU)":                  {users, users},
		"D:(A;;SD;;;BU)":                  {users, users},
		"D:(A;;WD;;;BU)":                  {users, users},
		"D:(A;;WO;;;BU)":                  {users, users},
		"D:(A;;0x2;;;BU)":                 {users, users}, // add files
		"D:(A;;0x4;;;BU)":                 {users, users}, // add folders
		"D:(A;;0x40;;;BU)":                {users, users}, // delete what is in it
		"D:(A;;0x120080;;;BU)":            {"", ""},       // see that it is there
		"D:(A;OICIIO;FA;;;BU)":            {"", ""},       // for what will be made in it
		"D:(A;OICIIO;FA;;;CO)":            {"", ""},
		"D:(A;OICI;FA;;;BU)":              {users, users},
		"D:(A;;FA;;;WD)":                  {everyone, everyone},
		"D:(D;;FA;;;BU)(A;;FA;;;SY)":      {"", ""},
		"D:(D;;FA;;;BU)(A;;FR;;;BU)":      {users, ""}, // denials are not reckoned with
		"D:(A;;FA;;;AU)(A;;FR;;;BU)":      {"S-1-5-11 " + users, "S-1-5-11"},
		"D:(A;;FR;;;BU)(A;;FR;;;BU)":      {users, ""},
		"D:(A;;FA;;;S-1-5-21-1-2-3-1002)": {"S-1-5-21-1-2-3-1002", "S-1-5-21-1-2-3-1002"},
		"D:(A;;FR;;;S-1-15-2-1)":          {"S-1-15-2-1", ""}, // all apps
		"D:P":                             {"", ""},           // nobody may do anything
	} {
		for forbidden, want := range map[fs.FileMode]string{Any: want.any, Writing: want.writing} {
			if who, err := strangers(list(t, text), forbidden, trusted); err != nil || strings.Join(who, " ") != want {
				t.Errorf("%s, forbidden %o: %q, %v, want %q", text, forbidden, who, err, want)
			}
		}
	}
	if who, err := strangers(nil, Writing, trusted); err != nil || len(who) != 1 || who[0] != everyone {
		t.Errorf("no list: %q, %v", who, err)
	}
}

// TestLists: what is made is private, and what is not is refused.
func TestLists(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "folder")
	if err := MakeDir(dir, Any); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Dir(dir), dir} {
		if err := CheckDir(path, Any); err != nil {
			t.Error(err)
		}
	}
	// In another folder: Wine hands the list of a folder on to a file whose own is set.
	path := filepath.Join(filepath.Dir(dir), "file")
	for how, write := range map[string]func(string, []byte) error{"Create": Create, "Replace": Replace} {
		if err := write(path, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path, 10); err != nil {
			t.Errorf("after %s: %v", how, err)
		}
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := Create(path, []byte("x")); err != nil {
		t.Fatal(err)
	}
	me, err := user()
	if err != nil {
		t.Fatal(err)
	}
	mine := "(A;;FA;;;SY)(A;;FA;;;" + me + ")"
	for entry, refused := range map[string]struct{ reading, writing bool }{"(A;;FR;;;WD)": {true, false}, "(A;;FW;;;WD)": {true, true}, "(A;;FA;;;WD)": {true, true}, "": {}} {
		setList(t, path, "D:P"+mine+entry)
		setList(t, dir, "D:P"+mine+entry)
		for how, check := range map[string]struct {
			err     error
			refused bool
			path    string
		}{
			"Read":              {second(Read(path, 10)), refused.reading, path},
			"CheckDir, Any":     {CheckDir(dir, Any), refused.reading, dir},
			"CheckDir, Writing": {CheckDir(dir, Writing), refused.writing, dir},
			"MakeDir, Writing":  {MakeDir(dir, Writing), refused.writing, dir},
			"ReadShared":        {second(ReadShared(path, 10)), false, path},
		} {
			if errors.Is(check.err, ErrMode) != check.refused || (check.err == nil) == check.refused {
				t.Errorf("%s with the entry %q: %v, want ErrMode: %t", how, entry, check.err, check.refused)
			}
			if check.err != nil && !strings.Contains(check.err.Error(), `icacls "`+check.path+`" /inheritance:r /remove *`+everyone) {
				t.Errorf("%s: without advice: %v", how, check.err)
			}
		}
	}
	// A replaced file is private, whatever the old one was.
	setList(t, path, "D:P"+mine+"(A;;FA;;;WD)")
	if err := Replace(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if content, err := Read(path, 10); err != nil || string(content) != "new" {
		t.Errorf("%q, %v", content, err)
	}
}

func second(_ []byte, err error) error { return err }

// TestOwners: what another user has made is refused, and what a service has is
// not.
func TestOwners(t *testing.T) {
	for owner, trusted := range map[string]bool{
		sidSystem: true, sidAdministrators: true, sidLocalService: true, sidInstaller: true, "S-1-5-80-1-2-3-4-5": true,
		"S-1-5-21-1-2-3-1002": false, everyone: false, "S-1-5-7": false, "S-1-5-32-545": false,
	} {
		if isOwner(owner, "S-1-5-21-1-2-3-1001") != trusted {
			t.Errorf("the owner %s is trusted: %t", owner, !trusted)
		}
	}
	if !isOwner("S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1001") {
		t.Error("the user himself is not trusted")
	}
}

// TestDescriptors: whose a file or folder is, and what its list gives, decide together,
// and the error says what to do.
func TestDescriptors(t *testing.T) {
	const (
		me      = "S-1-5-21-1-2-3-1001"
		another = "S-1-5-21-1-2-3-1002"
		service = "S-1-5-80-1-2-3-4-5"
		private = "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;" + me + ")"
		// What ProgramData hands on: users may read, make folders and files, and have what they make.
		programData = "D:(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIIOID;GA;;;CO)(A;OICIID;0x1200a9;;;BU)(A;CIID;DCLCRPCR;;;BU)"
		owned, list = "belongs to", "icacls"
	)
	for name, tt := range map[string]struct{ text, any, writing, reading string }{
		"mine":                        {"O:" + me + private, "", "", ""},
		"an administrator's":          {"O:BA" + private, "", "", ""},
		"the system's":                {"O:SY" + private, "", "", ""},
		"a service's":                 {"O:" + service + "D:P(A;;FA;;;" + service + ")", "", "", ""},
		"a local service's":           {"O:LSD:P(A;;FA;;;LS)", "", "", ""},
		"another user's":              {"O:" + another + private, owned, owned, owned},
		"another user's, who may":     {"O:" + another + "D:P(A;;FA;;;" + another + ")", owned, owned, owned},
		"everybody's":                 {"O:WD" + private, owned, owned, owned},
		"users'":                      {"O:BU" + private, owned, owned, owned},
		"a service may, not its":      {"O:" + me + private + "(A;;FA;;;" + service + ")", list, list, list},
		"inherited from ProgramData":  {"O:" + me + programData, list, list, list},
		"made by an administrator":    {"O:BA" + programData, list, list, list},
		"made by another there":       {"O:" + another + programData, owned, owned, owned},
		"inherited, reading":          {"O:" + me + "D:(A;ID;FA;;;" + me + ")(A;ID;FR;;;BU)", list, "", list},
		"inherited, private":          {"O:" + me + "D:(A;ID;FA;;;" + me + ")(A;ID;FA;;;SY)", "", "", ""},
		"inherited by what is in it":  {"O:" + me + "D:(A;ID;FA;;;" + me + ")(A;OICIIOID;FA;;;BU)", "", "", ""},
		"others may write":            {"O:" + me + private + "(A;;FW;;;AU)", list, list, ""},
		"others may append":           {"O:" + me + private + "(A;;0x4;;;AU)", list, list, ""},
		"others may read":             {"O:" + me + private + "(A;;FR;;;AU)", list, "", list},
		"others may run":              {"O:" + me + private + "(A;;0x20;;;AU)", list, "", ""},
		"others may change the list":  {"O:" + me + private + "(A;;WD;;;AU)", list, list, list},
		"others may become the owner": {"O:" + me + private + "(A;;WO;;;AU)", list, list, list},
		"the owner's rights":          {"O:" + service + "D:P(A;;FA;;;S-1-3-4)", "", "", ""},
		"no list":                     {"O:" + me, list, list, list},
		"no owner":                    {private, "has no owner", "has no owner", "has no owner"},
	} {
		descriptor, err := windows.SecurityDescriptorFromString(tt.text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for forbidden, want := range map[fs.FileMode]string{Any: tt.any, Writing: tt.writing, Reading: tt.reading} {
			err := examine(descriptor, `C:\x`, me, forbidden)
			isMode := want == owned || want == list
			if (err == nil) != (want == "") || errors.Is(err, ErrMode) != isMode || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, forbidden %04o: %v, want %q", name, forbidden, err, want)
			}
			if isMode && (err == nil || !strings.Contains(err.Error(), `icacls "C:\x"`)) {
				t.Errorf("%s: without advice: %v", name, err)
			}
		}
	}
}

// TestHeirs: to whom a file is given that replaces another's.
func TestHeirs(t *testing.T) {
	const me, another, third, service = "S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1002", "S-1-5-21-1-2-3-1003", "S-1-5-80-1-2-3-4-5"
	for _, tt := range []struct {
		was, folder, want string
		refused           bool
	}{
		{was: me, folder: me}, {was: me, folder: another}, {was: sidAdministrators, folder: service}, {was: sidSystem, folder: me}, {was: sidInstaller, folder: me},
		{was: service, folder: service, want: service}, {was: service, folder: sidAdministrators, want: service},
		{was: sidLocalService, folder: sidSystem, want: sidLocalService}, {was: sidNetworkService, folder: sidSystem, want: sidNetworkService},
		{was: another, folder: another, want: another}, // in that user's own profile
		{was: another, folder: sidAdministrators, refused: true}, {was: another, folder: sidSystem, refused: true}, {was: another, folder: me, refused: true},
		{was: another, folder: third, refused: true}, {was: everyone, folder: me, refused: true},
	} {
		got, err := heir(tt.was, me, me, tt.folder)
		if got != tt.want || errors.Is(err, fs.ErrPermission) != tt.refused || (err == nil) == tt.refused {
			t.Errorf("%+v: %q, %v", tt, got, err)
		}
	}
	if got, err := heir(service, service, me, me); got != "" || err != nil {
		t.Errorf("a file that is the service's already: %q, %v", got, err)
	}
}

// TestCheckFile: files that others may read, and links to them.
func TestCheckFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Create(path, []byte("x")); err != nil {
		t.Fatal(err)
	}
	me, err := user()
	if err != nil {
		t.Fatal(err)
	}
	for entry, refused := range map[string]bool{"": false, "(A;;FW;;;WD)": false, "(A;;FR;;;WD)": true, "(A;;FA;;;WD)": true} {
		setList(t, path, "D:P(A;;FA;;;SY)(A;;FA;;;"+me+")"+entry)
		if err := CheckFile(path, Reading); errors.Is(err, ErrMode) != refused || (err == nil) == refused {
			t.Errorf("with the entry %q: %v", entry, err)
		}
	}
}

// TestReplaceInUse: a file that a program has open that does not share it is
// replaced when that has closed it.
func TestReplaceInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for how, do := range map[string]func() error{
		"Replace": func() error { return Replace(path, []byte("new")) },
		"Remove":  func() error { return Remove(path) },
	} {
		if err := Replace(path, []byte("old")); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- do() }()
		if content, err := ReadShared(path, 10); err != nil || string(content) != "old" {
			t.Fatalf("%q, %v", content, err)
		}
		file.Close()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", how, err)
		}
	}
}
