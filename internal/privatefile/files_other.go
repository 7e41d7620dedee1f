// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package privatefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// FileName returns the name of the file for a name that keystore.CheckName allows,
// with an extension, or "": both, one after the other. On Windows not every name can
// be a file's.
func FileName(name, extension string) string { return name + extension }

// NameOf is the inverse of FileName. ok is false if no name has that file.
func NameOf(file, extension string) (name string, ok bool) { return strings.CutSuffix(file, extension) }

// OpenLock opens what TryLock locks for a folder.
func OpenLock(dir string) (*os.File, error) { return os.Open(dir) }

// Remove removes a file, also one that somebody is reading.
func Remove(path string) error { return os.Remove(path) }

// IsFull reports whether an error says that there is no room on the disk.
func IsFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// IsReadOnly reports whether an error says that nothing can be written to the disk.
func IsReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }

// isBroken reports whether an error says that the disk is.
func isBroken(err error) bool { return errors.Is(err, syscall.EIO) }

func makeDirs(dir string) error { return os.MkdirAll(dir, 0o700) }

// checkRights reports whether a file or folder does not give others the forbidden
// rights.
func checkRights(path string, info fs.FileInfo, forbidden fs.FileMode) error {
	mode := info.Mode().Perm()
	if mode&forbidden == 0 {
		return nil
	}
	return fmt.Errorf("%s is %w (mode %04o): chmod go= %s, and if they may have read secrets there, replace those", path, ErrMode, mode, path)
}

// openPlain opens a plain file, which others must not have the forbidden rights to.
func openPlain(path string, forbidden fs.FileMode) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is %w", path, ErrNotPlain)
	}
	if err := checkRights(path, info, forbidden); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// makeTemp makes a file with mode 0600 whose name begins so.
func makeTemp(dir, prefix string) (*os.File, error) { return os.CreateTemp(dir, prefix+"*") }

// openTemp opens a temporary file that somebody has left, to lock it.
func openTemp(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR, 0) }

// isWriters reports whether an error of openTemp says that the file's writer is at
// work.
func isWriters(error) bool { return false }

// vanish would have the file go with its process.
func vanish(*os.File) {}

// link gives a temporary file its name, if nobody has that: a rename would replace
// what is there.
func (t temp) link(path string) error { return os.Link(t.path, path) }

// rename gives a temporary file its name, whoever has that.
func (t temp) rename(path string) error { return os.Rename(t.path, path) }

// syncDir puts a folder's entries on the disk.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
