// SPDX-License-Identifier: Apache-2.0

package privatefile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/windows"
)

// adopt gives a new file the owner of the one that it is to replace, and a private
// list with that owner. Where there is none and an administrator is at work, it gets
// the owner of its folder: an administrator's tool must not take files away from the
// service or the user that they belong to.
func adopt(file *os.File, replaced fs.FileInfo, path string) error {
	like := path
	if replaced == nil {
		if like = filepath.Dir(path); !windows.GetCurrentProcessToken().IsElevated() {
			return nil
		}
	}
	was, err := ownerOfPath(like)
	if err != nil {
		return err
	}
	is, err := ownerOfFile(file)
	if err != nil {
		return err
	}
	me, err := user()
	if err != nil {
		return err
	}
	folder, err := ownerOfPath(filepath.Dir(path))
	if err != nil {
		return err
	}
	heir, err := heir(was, is, me, folder)
	if err != nil || heir == "" {
		return err
	}
	if err := give(file, heir); err != nil {
		return fmt.Errorf("it belongs to %s and would not any more: do this as that user, or as administrator: %w: %w", account(was), fs.ErrPermission, err)
	}
	return nil
}

// heir returns to whom a new file is to be given that replaces one of was, in a folder of
// folder's; "" if it stays with whom it has: what belongs to Administrators or SYSTEM
// gets the user of this process as its owner, who may use it, and so may they. A user who
// has put a file into a folder of another, ProgramData for example, gets nothing.
func heir(was, is, me, folder string) (string, error) {
	switch {
	case was == is, was == me, was == sidAdministrators, was == sidSystem, was == sidInstaller:
		return "", nil
	case was == folder, isOwner(was, me):
		return was, nil
	}
	return "", fmt.Errorf("the file there belongs to %s, and its folder to %s: who has put it there may want to read what is written: remove it: %w", account(was), account(folder), fs.ErrPermission)
}

func ownerOfPath(path string) (string, error) {
	file, err := openFile(path, windows.READ_CONTROL, shareAll, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, nil)
	if err != nil {
		return "", err
	}
	defer file.Close()
	return ownerOfFile(file)
}

func ownerOfFile(file *os.File) (string, error) {
	descriptor, err := windows.GetSecurityInfo(windows.Handle(file.Fd()), windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return "", &fs.PathError{Op: "read the owner of", Path: file.Name(), Err: err}
	}
	return ownerOf(descriptor)
}

// give makes somebody the owner of a file, with a private list. The privilege for
// that, which administrators have, is switched on for this thread alone.
func give(file *os.File, owner string) error {
	sid, err := windows.StringToSid(owner)
	if err != nil {
		return err
	}
	descriptor, err := privateList(owner, false)
	if err != nil {
		return err
	}
	list, _, err := descriptor.DACL()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := windows.ImpersonateSelf(windows.SecurityImpersonation); err == nil {
		defer windows.RevertToSelf()
		restorePrivilege()
	}
	return windows.SetSecurityInfo(windows.Handle(file.Fd()), windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, sid, nil, list, nil)
}

// restorePrivilege switches SeRestorePrivilege on, if this thread may have it: whoever
// needs it and has it not gets an error afterwards.
func restorePrivilege() {
	var token windows.Token
	if windows.OpenThreadToken(windows.CurrentThread(), windows.TOKEN_ADJUST_PRIVILEGES|windows.TOKEN_QUERY, true, &token) != nil {
		return
	}
	defer token.Close()
	name, err := windows.UTF16PtrFromString("SeRestorePrivilege")
	if err != nil {
		return
	}
	privileges := windows.Tokenprivileges{PrivilegeCount: 1}
	privileges.Privileges[0].Attributes = windows.SE_PRIVILEGE_ENABLED
	if windows.LookupPrivilegeValue(nil, name, &privileges.Privileges[0].Luid) == nil {
		_ = windows.AdjustTokenPrivileges(token, false, &privileges, 0, nil, nil)
	}
}
