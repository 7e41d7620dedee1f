// SPDX-License-Identifier: Apache-2.0

// Package privatefile writes and reads small files that only their owner may
// read, and that are there complete or not at all, also after a power cut. On
// Windows the modes of this package are access control lists: of the owner, of
// Administrators and of SYSTEM.
package privatefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrMode: the file or folder can be used by others than its owner; on Windows by
// others than its owner, Administrators and SYSTEM.
var ErrMode = errors.New("open to others than its owner")

// Rights that others than the owner must not have. On Windows each stands for those
// of an access control list that allow as much.
const (
	Any     fs.FileMode = 0o077
	Writing fs.FileMode = 0o022
	Reading fs.FileMode = 0o044
)

// MakeDir makes a folder with mode 0700, and its parents, if it is not there.
// One that gives others the forbidden rights is ErrMode.
func MakeDir(dir string, forbidden fs.FileMode) error {
	if err := makeDirs(dir); err != nil {
		return err
	}
	return CheckDir(dir, forbidden)
}

// CheckDir reports whether dir is a folder that does not give others the
// forbidden rights.
func CheckDir(dir string, forbidden fs.FileMode) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	return checkRights(dir, info, forbidden)
}

// CheckFile reports whether a plain file, or the one that a link leads to, does not give
// others the forbidden rights. For something else, such as a pipe, it is nil.
func CheckFile(path string, forbidden fs.FileMode) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	return checkRights(path, info, forbidden)
}

// Create writes a file that is not there yet. An existing one, or one that
// another process makes meanwhile, is fs.ErrExist and stays as it is. The file
// system must have hard links (FAT has none). Root's new file belongs to the
// owner of the folder.
func Create(path string, content []byte) error {
	dir := filepath.Dir(path)
	Sweep(path)
	if done, err := createUnnamed(path, content); err != nil {
		return err
	} else if done {
		return SyncDir(dir)
	}
	temp, err := writeTemp(path, content, nil)
	if err != nil {
		return err
	}
	defer temp.remove()
	if err := temp.link(path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// Replace writes a file, in place of the one that may be there. The new one has
// the owner, the group and the mode of the old one, without any rights of others.
// Where they cannot be kept, the error matches fs.ErrPermission and nothing has
// changed.
func Replace(path string, content []byte) error {
	replaced, err := os.Lstat(path)
	if err != nil || !replaced.Mode().IsRegular() {
		replaced = nil
	}
	temp, err := writeTemp(path, content, replaced)
	if err != nil {
		return err
	}
	defer temp.remove()
	if err := temp.rename(path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir puts a folder's entries on the disk, which syncing a file does not.
// Windows has no such operation.
func SyncDir(dir string) error { return syncDir(dir) }

// ErrNotPlain: the path names something else than a plain file. Symbolic links
// are not followed: removing one would not remove what it points to.
var ErrNotPlain = errors.New("not a plain file")

// ErrTooLarge: the file has more bytes than it may have.
var ErrTooLarge = errors.New("too large")

// Read returns the contents of a file of at most limit bytes. A file that
// others may read is ErrMode.
func Read(path string, limit int) ([]byte, error) { return read(path, limit, Any) }

// ReadShared is Read for what others may read and write, too.
func ReadShared(path string, limit int) ([]byte, error) { return read(path, limit, 0) }

// OpenShared opens a file for reading that others may read and write, too. It must be
// a plain one.
func OpenShared(path string) (*os.File, error) { return openPlain(path, 0) }

func read(path string, limit int, forbidden fs.FileMode) ([]byte, error) {
	file, err := openPlain(path, forbidden)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(content) > limit {
		return nil, fmt.Errorf("%s is %w: more than %d bytes", path, ErrTooLarge, limit)
	}
	return content, nil
}

// IsDiskFailure reports whether an error is the disk's, and may go with it.
func IsDiskFailure(err error) bool { return IsFull(err) || IsReadOnly(err) || isBroken(err) }
