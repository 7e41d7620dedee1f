// SPDX-License-Identifier: Apache-2.0

package privatefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// TempPrefix begins the names of temporary files, which a killed process may
// leave behind. It begins with a dot, as no name of a key does. The name of the
// file that is to be written follows, and a random number.
const TempPrefix = ".new-"

const (
	// abandoned is how old a temporary file is that nobody is writing any more,
	// where nothing else tells.
	abandoned = time.Hour

	// maxBase is how much of a file's name goes into that of its temporary file:
	// most file systems allow 255 bytes.
	maxBase = 200

	// tempTries bounds how often a temporary file is made anew that was swept away
	// between its making and its locking.
	tempTries = 10
)

// A temp is a temporary file that is complete and on the disk. Its writer holds
// a lock on it until it is renamed or removed, so that the file of a writer that
// was killed can be told from one that is needed.
type temp struct {
	path string
	lock *os.File // nil where the system has no such locks
}

// remove removes the file, if it is still there under its own name.
func (t temp) remove() {
	Remove(t.path)
	if t.lock != nil {
		t.lock.Close()
	}
}

// writeTemp writes a temporary file for the file of that path. Those that killed
// writers of the same file have left go first: they may be what fills the disk,
// and they may hold secrets. replaced is the file that it is to replace, if there
// is one.
func writeTemp(path string, content []byte, replaced fs.FileInfo) (temp, error) {
	Sweep(path)
	file, err := createTemp(path)
	if err != nil {
		return temp{}, err
	}
	t := temp{path: file.Name()}
	vanish(file)
	if err = adopt(file, replaced, path); err == nil {
		_, err = file.Write(content)
	}
	if err == nil {
		err = file.Sync()
	}
	if err == nil && hasLocks {
		t.lock = file
		return t, nil
	}
	if err = errors.Join(err, file.Close()); err != nil {
		t.remove()
		return temp{}, err
	}
	return t, nil
}

// createTemp makes a locked temporary file, with mode 0600.
func createTemp(path string) (file *os.File, err error) {
	for range tempTries {
		file, err = makeTemp(filepath.Dir(path), tempName(path))
		if err != nil || !hasLocks {
			return file, err
		}
		// Before it was locked, another process may have taken it for abandoned.
		if locked, known := TryLock(file); !known || locked && isThere(file) {
			return file, nil
		}
		file.Close()
		Remove(file.Name())
		err = &fs.PathError{Op: "create", Path: file.Name(), Err: errors.New("removed by another process")}
	}
	return nil, err
}

// tempName begins the names of the temporary files of a path.
func tempName(path string) string {
	base := filepath.Base(path)
	return TempPrefix + base[:min(len(base), maxBase)] + "-"
}

func isThere(file *os.File) bool {
	there, err := os.Lstat(file.Name())
	if err != nil {
		return false
	}
	ours, err := file.Stat()
	return err == nil && os.SameFile(there, ours)
}

// Sweep removes the temporary files that writers of this file have left who were
// killed, and no others: the folder may be anybody's. Create and Replace begin
// with it.
func Sweep(path string) {
	prefix := tempName(path)
	removeTemps(filepath.Dir(path), func(name string, _ fs.FileInfo) bool { return strings.HasPrefix(name, prefix) })
}

// SweepDir removes the temporary files of all killed writers from a folder that
// is this program's own: at once, or once they are an hour old if an earlier
// version has made them, which has no lock.
func SweepDir(dir string) {
	removeTemps(dir, func(name string, info fs.FileInfo) bool { return hasBase(name) || isOld(info) })
}

// Purge removes every temporary file of a file that is to go for good, unless
// somebody is writing it just now, and every other one that same says is a copy of
// it: earlier versions gave them names that do not tell. An error says that one
// may be left.
func Purge(path string, same func(temp string, info fs.FileInfo) bool) error {
	dir, prefix := filepath.Dir(path), tempName(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, TempPrefix) {
			continue
		}
		temp := filepath.Join(dir, name)
		// Not entry.Info: to os.SameFile, that can be another file on Windows.
		info, err := os.Lstat(temp)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		ours := strings.HasPrefix(name, prefix) && !isBeingWritten(temp)
		if !ours && !same(temp, info) {
			continue
		}
		if err := Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// isBeingWritten reports whether the writer of a temporary file is at work. Where
// that cannot be known it is not.
func isBeingWritten(path string) bool {
	file, err := openTemp(path)
	if err != nil {
		return isWriters(err)
	}
	defer file.Close()
	locked, known := TryLock(file)
	return known && !locked
}

// hasBase reports whether the name of a temporary file has that of the file that
// it is for.
func hasBase(name string) bool { return strings.Contains(strings.TrimPrefix(name, TempPrefix), "-") }

// removeTemps removes those of a folder's temporary files that which picks and
// nobody is writing. It is tidying: what fails is tried again the next time.
func removeTemps(dir string, which func(name string, info fs.FileInfo) bool) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), TempPrefix) {
			continue
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || !which(entry.Name(), info) {
			continue
		}
		removeAbandoned(filepath.Join(dir, entry.Name()), info)
	}
}

// removeAbandoned removes a temporary file if nobody is writing it any more. It
// holds the file's lock until then, so that no writer takes it in between.
func removeAbandoned(path string, info fs.FileInfo) {
	if !hasLocks {
		if isOld(info) {
			Remove(path)
		}
		return
	}
	file, err := openTemp(path)
	if err != nil {
		return // another user's, perhaps
	}
	defer file.Close()
	if locked, known := TryLock(file); locked || !known && isOld(info) {
		Remove(path)
	}
}

func isOld(info fs.FileInfo) bool { return time.Since(info.ModTime()) > abandoned }
