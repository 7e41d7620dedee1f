// SPDX-License-Identifier: Apache-2.0

package privatefile

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// shareAll lets everybody else go on reading, renaming and removing a file that is
// open. os.Open does not: while a file is open so, nobody can replace it.
const shareAll = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE

// What somebody else has open in a way that does not allow it is tried again after
// firstWait, then after twice as long and so on up to longestWait, for patience: virus
// scanners and backups have files open so for a moment.
const (
	firstWait   = time.Millisecond
	longestWait = 20 * time.Millisecond
	patience    = 5 * time.Second
)

// stubbornly repeats what fails with one of these errors.
func stubbornly(do func() error, inUse ...error) error {
	deadline := time.Now().Add(patience)
	for moment := firstWait; ; moment = min(2*moment, longestWait) {
		err := do()
		if err == nil || !isOne(err, inUse...) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(moment)
	}
}

func isOne(err error, of ...error) bool {
	return slices.ContainsFunc(of, func(one error) bool { return errors.Is(err, one) })
}

// longPath returns an absolute path that may have more than 260 characters, in which
// no part stands for a device.
func longPath(path string) (string, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return "", windows.ERROR_INVALID_NAME
	}
	path, err := filepath.Abs(path)
	switch {
	case err != nil:
		return "", err
	case strings.HasPrefix(path, `\\.\`), strings.HasPrefix(path, `\\?\`):
		return path, nil
	case strings.HasPrefix(path, `\\`):
		return `\\?\UNC` + path[1:], nil
	default:
		return `\\?\` + path, nil
	}
}

// openFile is windows.CreateFile for a path of any length. A symbolic link is opened
// itself.
func openFile(path string, access, share, disposition, flags uint32, attributes *windows.SecurityAttributes) (*os.File, error) {
	handle := windows.InvalidHandle
	long, err := longPath(path)
	if err == nil {
		var name *uint16
		if name, err = windows.UTF16PtrFromString(long); err == nil {
			handle, err = windows.CreateFile(name, access, share, attributes, disposition, windows.FILE_FLAG_OPEN_REPARSE_POINT|flags, 0)
		}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(handle), path), nil
}

// makeFile opens a file; one that it makes has the private list.
func makeFile(path string, access, share, disposition uint32) (*os.File, error) {
	attributes, err := privateAttributes(false)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return openFile(path, access, share, disposition, 0, attributes)
}

// makeDirs makes the folders of a path that are not there, with the private list.
func makeDirs(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: windows.ERROR_DIRECTORY}
		}
		return nil
	}
	long, err := longPath(dir)
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := makeDirs(parent); err != nil {
			return err
		}
	}
	attributes, err := privateAttributes(true)
	if err != nil {
		return err
	}
	name, err := windows.UTF16PtrFromString(long)
	if err == nil {
		err = windows.CreateDirectory(name, attributes)
	}
	if errors.Is(err, windows.ERROR_ALREADY_EXISTS) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return nil // somebody was faster
		}
	}
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return nil
}

// checkRights reports whether a file or folder does not give others the forbidden
// rights.
func checkRights(path string, _ fs.FileInfo, forbidden fs.FileMode) error {
	file, err := openFile(path, windows.READ_CONTROL, shareAll, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, nil)
	if err != nil {
		return err
	}
	defer file.Close()
	return checkAccess(file, forbidden)
}

// openPlain opens a plain file, which others must not have the forbidden rights to.
func openPlain(path string, forbidden fs.FileMode) (file *os.File, err error) {
	if long, err := longPath(path); err == nil && strings.HasPrefix(long, `\\.\`) {
		return nil, fmt.Errorf("%s is %w", path, ErrNotPlain) // but a device
	}
	holdBack(path)
	err = stubbornly(func() error {
		file, err = openFile(path, windows.GENERIC_READ, shareAll, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, nil)
		return err
	}, windows.ERROR_SHARING_VIOLATION)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is %w", path, ErrNotPlain)
	}
	if err == nil {
		err = checkAccess(file, forbidden)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

const writing = windows.GENERIC_READ | windows.GENERIC_WRITE | windows.DELETE | windows.WRITE_DAC | windows.WRITE_OWNER

// makeTemp makes a file with the private list whose name begins so.
func makeTemp(dir, prefix string) (file *os.File, err error) {
	for range tempTries {
		path := filepath.Join(dir, prefix+strconv.FormatUint(uint64(rand.Uint32()), 10))
		if file, err = makeFile(path, writing, shareAll, windows.CREATE_NEW); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return file, err
}

// openTemp opens a temporary file that somebody has left, to lock it.
func openTemp(path string) (*os.File, error) {
	return openFile(path, windows.GENERIC_READ|windows.GENERIC_WRITE, shareAll, windows.OPEN_EXISTING, 0, nil)
}

// isWriters reports whether an error of openTemp says that the file's writer is at
// work: one that goes with its writer cannot be opened.
func isWriters(err error) bool {
	return isOne(err, windows.ERROR_SHARING_VIOLATION, windows.ERROR_ACCESS_DENIED)
}

// vanish has the file go with its process, also if that is killed. Where the file
// system cannot do that, a file is left, which Sweep takes away.
func vanish(file *os.File) { _ = dispose(file, true) }

func dispose(file *os.File, remove bool) error {
	var info byte // FILE_DISPOSITION_INFO
	if remove {
		info = 1
	}
	return windows.SetFileInformationByHandle(windows.Handle(file.Fd()), windows.FileDispositionInfo, &info, 1)
}

// link gives a temporary file its name, if nobody has that.
func (t temp) link(path string) error {
	if _, err := os.Lstat(path); err == nil { // to Wine, a link that leads nowhere is not there
		return &os.LinkError{Op: "link", Old: t.path, New: path, Err: fs.ErrExist}
	}
	return t.move("link", path, false)
}

// rename gives a temporary file its name, whoever has that, and also while others
// are reading what has it.
func (t temp) rename(path string) error {
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return &os.LinkError{Op: "rename", Old: t.path, New: path, Err: windows.ERROR_DIRECTORY}
	}
	return t.move("rename", path, true)
}

// move renames the file, which for that must be one that stays.
func (t temp) move(how, path string, replace bool) error {
	var release func()
	err := stubbornly(func() error {
		err := dispose(t.lock, false)
		if err == nil {
			err = renameFile(t.lock, path, replace)
		}
		if err == nil {
			return nil
		}
		vanish(t.lock)
		if release == nil {
			release = claimFile(path)
		}
		return err
	}, windows.ERROR_SHARING_VIOLATION, windows.ERROR_ACCESS_DENIED)
	if release != nil {
		release()
	}
	if err != nil {
		return &os.LinkError{Op: how, Old: t.path, New: path, Err: err}
	}
	return nil
}

// renameInfo is FILE_RENAME_INFORMATION.
type renameInfo struct {
	flags  uint32
	root   windows.Handle
	length uint32 // of the name, in bytes
	name   [1]uint16
}

const fileRenameInformationEx = 65 // of FILE_INFORMATION_CLASS

// renameFile renames an open file. With NTFS's POSIX semantics, what it replaces
// stays what it is for those who have it open, and its name is free at once.
func renameFile(file *os.File, path string, replace bool) error {
	long, err := longPath(path)
	if err != nil {
		return err
	}
	name, err := windows.UTF16FromString(`\??\` + strings.TrimPrefix(long, `\\?\`))
	if err != nil {
		return err
	}
	name = name[:len(name)-1]
	size := int(unsafe.Offsetof(renameInfo{}.name)) + 2*len(name)
	buffer := make([]uint64, size/8+1) // aligned
	info := (*renameInfo)(unsafe.Pointer(&buffer[0]))
	info.length = uint32(2 * len(name))
	copy(unsafe.Slice(&info.name[0], len(name)), name)
	if replace {
		info.flags = windows.FILE_RENAME_REPLACE_IF_EXISTS
	}
	set := func(class uint32) error {
		err := windows.NtSetInformationFile(windows.Handle(file.Fd()), new(windows.IO_STATUS_BLOCK), (*byte)(unsafe.Pointer(info)), uint32(size), class)
		if status, ok := err.(windows.NTStatus); ok {
			return status.Errno()
		}
		return err
	}
	info.flags |= windows.FILE_RENAME_POSIX_SEMANTICS
	err = set(fileRenameInformationEx)
	if isOne(err, windows.ERROR_INVALID_PARAMETER, windows.ERROR_NOT_SUPPORTED, windows.ERROR_INVALID_FUNCTION) {
		info.flags &^= windows.FILE_RENAME_POSIX_SEMANTICS // FAT, a share, or an old Windows
		err = set(windows.FileRenameInformation)
	}
	return err
}

// Remove removes a file, also one that somebody is reading. Its name is free at
// once.
func Remove(path string) error {
	return stubbornly(func() error {
		file, err := openFile(path, windows.DELETE, shareAll, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, nil)
		if err != nil {
			err.(*fs.PathError).Op = "remove"
			return err
		}
		how := uint32(windows.FILE_DISPOSITION_DELETE | windows.FILE_DISPOSITION_POSIX_SEMANTICS | windows.FILE_DISPOSITION_IGNORE_READONLY_ATTRIBUTE)
		err = windows.SetFileInformationByHandle(windows.Handle(file.Fd()), windows.FileDispositionInfoEx, (*byte)(unsafe.Pointer(&how)), 4)
		file.Close()
		if err != nil {
			return os.Remove(path) // where there is no such thing
		}
		return nil
	}, windows.ERROR_SHARING_VIOLATION)
}

func syncDir(string) error { return nil }

// IsFull reports whether an error says that there is no room on the disk.
func IsFull(err error) bool {
	return isOne(err, windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// IsReadOnly reports whether an error says that nothing can be written to the disk.
func IsReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

// isBroken reports whether an error says that the disk is.
func isBroken(err error) bool {
	return isOne(err, windows.ERROR_IO_DEVICE, windows.ERROR_CRC, windows.ERROR_NOT_READY, windows.ERROR_FILE_CORRUPT, windows.ERROR_DISK_CORRUPT)
}
