// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/keyfolder"
	"github.com/instancekey/instancekey/internal/privatefile"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// folder keeps the key files.
type folder struct{ keyfolder.Folder }

func openFolder(dir string) (folder, error) {
	f, err := keyfolder.Open("tpm", dir)
	return folder{f}, err
}

// load reads and parses the key's file.
func (f folder) load(name string) (*keyfile.File, error) {
	text, err := f.Read(name)
	if err != nil {
		return nil, err
	}
	k, err := keyfile.Parse(text)
	if errors.Is(err, keystore.ErrCorrupt) {
		return nil, fmt.Errorf("tpm: key %q: %w: restore %s, or delete the key and enrol with a new one", name, err, f.File(name))
	}
	if err != nil {
		return nil, fmt.Errorf("tpm: key %q: %w: leave %s to the program that made it, and make a key of another name", name, err, f.File(name))
	}
	if k.Importable {
		return nil, fmt.Errorf("tpm: key %q: %w: %s is an importable key: use Import on it", name, keystore.ErrCorrupt, f.File(name))
	}
	return k, nil
}

// update writes a key's file anew, unless it is not any more what was read: a key
// that was deleted meanwhile must not come back. The folder is locked.
func (f folder) update(name string, read, written *keyfile.File) error {
	now, err := f.load(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(now.Text, read.Text) {
		return f.Error(name, keystore.ErrUnavailable, errors.New("another program has changed the file meanwhile: try again"))
	}
	return f.Replace(name, written.Text)
}

// pins are the parents whose Names a folder's keys have pinned.
type pins []keyfile.Parent

// pins reads all key files.
func (f folder) pins() (pinned pins) {
	list, err := f.List()
	if err != nil {
		return nil // and no key can be written
	}
	for _, name := range list {
		if k, err := f.load(name); err == nil && k.Parent.Name != nil {
			pinned = append(pinned, k.Parent)
		}
	}
	return pinned
}

// names returns the Names that are pinned of a parent.
func (p pins) names(parent keyfile.Parent) (names [][]byte) {
	for _, pinned := range p {
		if pinned.Handle == parent.Handle && pinned.Template == parent.Template {
			names = append(names, pinned.Name)
		}
	}
	return names
}

// remains is what there is of a key that is to be deleted. Without a key it is not to
// be understood, and that is why.
type remains struct {
	key     *keyfile.File
	handles []tpm2.TPMHandle // without a key: where it may be persistent all the same
	legible bool             // the handles are all that the file names
	why     string
}

// remains reads a key's file for deleting the key, whoever else may read it. The error is
// of a file that cannot be read now, and so may be anything.
func (f folder) remains(ctx context.Context, name string) (remains, error) {
	r := remains{legible: true}
	text, err := privatefile.ReadShared(f.File(name), keyfolder.MaxSize)
	var rest io.Reader
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, nil
	case err == nil:
		if r.key, err = keyfile.Parse(text); err == nil {
			return r, nil
		}
		r.key, r.why, rest = nil, "is damaged", bytes.NewReader(text)
	case errors.Is(err, privatefile.ErrNotPlain), errors.Is(err, privatefile.ErrTooLarge):
		r.why = "is a symbolic link"
		if errors.Is(err, privatefile.ErrTooLarge) {
			r.why = "is too large for a key's"
		}
		file, err := openWhatever(f.File(name))
		if err != nil {
			return r, f.Error(name, keystore.ErrUnavailable, err)
		}
		if file == nil {
			return r, nil // never was a key's
		}
		defer file.Close()
		rest = whileContext{ctx, file}
	default:
		return r, f.Error(name, keystore.ErrUnavailable, err)
	}
	if r.handles, r.legible, err = keyfile.Handles(rest); err != nil {
		return r, f.Error(name, keystore.ErrUnavailable, err)
	}
	return r, nil
}

// openWhatever opens the plain file at path, of whatever size, or where a link leads to;
// nil if there is none.
func openWhatever(path string) (*os.File, error) {
	_, err := os.Stat(path)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	var file *os.File
	if err == nil {
		file, err = privatefile.OpenShared(path)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP) || errors.Is(err, privatefile.ErrNotPlain) {
		return nil, nil
	}
	return file, err
}

// whileContext reads until its context ends.
type whileContext struct {
	context.Context
	io.Reader
}

func (r whileContext) Read(p []byte) (int, error) {
	if err := r.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
