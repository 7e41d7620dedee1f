// SPDX-License-Identifier: Apache-2.0

// Package keyfolder keeps the key NAME as the file NAME.pem of a folder, which on
// Windows is escaped where Windows would take it for another. It is what Stores that have files have in common: how a file appears, is read, and
// goes, and what each failure means in the terms of package keystore.
package keyfolder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/instancekey/instancekey/internal/privatefile"
	"github.com/instancekey/instancekey/keystore"
)

const (
	extension = ".pem"
	// MaxSize of a key file, in bytes, is more than ten times what any has.
	MaxSize = 32 << 10
)

// denied is what to do about a file or a folder that belongs to somebody else.
const denied = ": another user, often root, has made it: give it to the one that runs this program (chown)"

// A Folder is a folder of key files. A file appears under its name complete and
// on the disk, or not at all, and none is ever written over by Create, also with
// several processes at work.
type Folder struct {
	path string // absolute: the process may change its working directory
	pkg  string // begins the text of errors
}

// Open makes the folder, with mode 0700, if it is not there. One that others
// than its owner may write to is refused: they could put their keys in the
// place of its keys. Errors match keystore.ErrUnavailable and begin with pkg.
func Open(pkg, dir string) (Folder, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return Folder{}, fmt.Errorf("%s: folder %s: %w", pkg, dir, err)
	}
	if err := privatefile.MakeDir(path, privatefile.Writing); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w%s", err, denied)
		}
		return Folder{}, fmt.Errorf("%s: %w: folder: %w", pkg, keystore.ErrUnavailable, err)
	}
	privatefile.SweepDir(path) // what processes have left that were killed
	return Folder{path, pkg}, nil
}

// String returns the folder's path.
func (f Folder) String() string { return f.path }

// File returns the path of the key's file.
func (f Folder) File(name string) string {
	return filepath.Join(f.path, privatefile.FileName(name, extension))
}

// Error returns an error about the key of that name, and what to do about a disk
// that is the cause.
func (f Folder) Error(name string, sentinel, cause error) error {
	advice := ""
	switch {
	case privatefile.IsFull(cause):
		advice = ": free some room there"
	case privatefile.IsReadOnly(cause):
		advice = ": mount it for writing"
	case errors.Is(cause, fs.ErrPermission):
		advice = denied
	}
	return fmt.Errorf("%s: key %q: %w: %w%s", f.pkg, name, sentinel, cause, advice)
}

func (f Folder) check() error { return privatefile.CheckDir(f.path, privatefile.Writing) }

// Vacant fails with keystore.ErrExists if the name is taken.
func (f Folder) Vacant(name string) error {
	_, err := os.Lstat(f.File(name))
	if err == nil {
		return f.Error(name, keystore.ErrExists, &fs.PathError{Op: "create", Path: f.File(name), Err: fs.ErrExist})
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = f.check()
	}
	if err != nil {
		return f.Error(name, keystore.ErrUnavailable, err)
	}
	return nil
}

// Create writes the file of a new key. If the name is taken, the error matches
// keystore.ErrExists and nothing has changed.
func (f Folder) Create(name string, content []byte) error {
	err := privatefile.Create(f.File(name), content)
	if errors.Is(err, fs.ErrExist) {
		return f.Error(name, keystore.ErrExists, err)
	}
	if err != nil {
		return f.Error(name, keystore.ErrUnavailable, err)
	}
	return nil
}

// Replace puts content in the place of the key's file.
func (f Folder) Replace(name string, content []byte) error {
	if err := privatefile.Replace(f.File(name), content); err != nil {
		return f.Error(name, keystore.ErrUnavailable, err)
	}
	return nil
}

// Read returns the contents of the key's file. Errors match
// keystore.ErrNotFound, keystore.ErrCorrupt for what is not a plain file of a
// plausible size, and keystore.ErrUnavailable for a file that others may read.
func (f Folder) Read(name string) ([]byte, error) {
	content, err := privatefile.Read(f.File(name), MaxSize)
	switch {
	case err == nil:
		return content, nil
	case errors.Is(err, fs.ErrNotExist):
		if err := f.check(); err != nil {
			// A folder that has gone, as one does that is not mounted, must
			// not let OpenOrCreate replace its keys.
			return nil, f.Error(name, keystore.ErrUnavailable, err)
		}
		return nil, f.Error(name, keystore.ErrNotFound, err)
	case errors.Is(err, privatefile.ErrNotPlain) || errors.Is(err, privatefile.ErrTooLarge):
		return nil, f.Error(name, keystore.ErrCorrupt, err)
	default:
		return nil, f.Error(name, keystore.ErrUnavailable, err)
	}
}

// Delete removes the key's file, if there is one, and the copies of it that a
// writer has left who was killed: the key would outlive its deletion there. isCopy
// reports whether a temporary file's contents are the same key; nil: none is.
func (f Folder) Delete(name string, isCopy func(content []byte) bool) error {
	if err := f.delete(f.File(name), isCopy); err != nil {
		return f.Error(name, keystore.ErrUnavailable, err)
	}
	return nil
}

func (f Folder) delete(path string, isCopy func([]byte) bool) error {
	info, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		if err := f.check(); err != nil {
			return err
		}
	}
	// The copies first: as long as one is there, so is the file, and Delete can be
	// called again.
	err = privatefile.Purge(path, func(temp string, other fs.FileInfo) bool {
		if info != nil && os.SameFile(info, other) {
			return true
		}
		content, err := privatefile.ReadShared(temp, MaxSize)
		return err == nil && isCopy != nil && isCopy(content)
	})
	if err != nil {
		return err
	}
	if err := privatefile.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return privatefile.SyncDir(f.path)
}

// List returns the names of the keys, in ascending order.
func (f Folder) List() ([]string, error) {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return nil, fmt.Errorf("%s: list keys: %w: %w", f.pkg, keystore.ErrUnavailable, err)
	}
	var names []string
	for _, entry := range entries {
		name, ok := privatefile.NameOf(entry.Name(), extension)
		if ok && keystore.CheckName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)                // ReadDir's order is that of the files: a-b.pem before a.pem
	return slices.Compact(names), nil // a folder of Windows can have Key.pem beside key.pem after all
}
