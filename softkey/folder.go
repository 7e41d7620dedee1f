package softkey

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/instancekey/instancekey/keystore"
)

const (
	extension = ".pem"
	// tempPrefix begins with a dot, as no key name does: what a killed process
	// leaves behind is never taken for a key.
	tempPrefix = ".new-"
	blockType  = "PRIVATE KEY"
	// maxFileSize is some 50 times the size of a P-384 key's file.
	maxFileSize = 16 << 10
)

// OpenDir returns a Store over a folder. It makes the folder, with mode 0700, if
// it is not there, and gives that mode to an empty one. The key NAME is the file NAME.pem with mode 0600: one
// unencrypted PKCS#8 key (RFC 5958) in PEM (RFC 7468), as "openssl genpkey"
// writes them; an operator may put such a file there. P-256, P-384, P-521 and
// Ed25519 keys can be used.
//
// Several processes may use one folder. A key appears under its name complete
// and on the disk, or not at all, and no key is ever written over. The folder's
// file system must have hard links (FAT has none).
//
// It fails if the folder holds anything and is open to others than its owner.
//
// The Store's errors match keystore.ErrCorrupt for a file that is empty, torn
// or damaged, or holds no such key, or is not a plain file: symbolic links are
// not followed, because Delete could not destroy what they point to. They match
// keystore.ErrUnavailable for a file that others than its owner may read, and
// where the operating system refuses; the cause is an [fs.PathError] then. On
// Windows modes are not checked: the folder's access control list decides.
func OpenDir(dir string) (*Store, error) {
	if dir == "" {
		return nil, errors.New("softkey: no folder given")
	}
	path, err := filepath.Abs(dir) // the process may change its working directory
	if err != nil {
		return nil, fmt.Errorf("softkey: folder %s: %w", dir, err)
	}
	f := folder(path)
	if err := f.prepare(); err != nil {
		return nil, fmt.Errorf("softkey: %w: %w", keystore.ErrUnavailable, err)
	}
	return &Store{f}, nil
}

// folder keeps keys as files. Its value is its absolute path.
type folder string

func (f folder) String() string { return string(f) }

func (f folder) file(name string) string { return filepath.Join(string(f), name+extension) }

// prepare makes the folder, or makes it private while it holds nothing yet that
// anybody could have read.
func (f folder) prepare() error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	err := f.check()
	if err == nil {
		return nil
	}
	if entries, readErr := os.ReadDir(string(f)); readErr != nil || len(entries) != 0 {
		return err
	}
	if err := os.Chmod(string(f), 0o700); err != nil {
		return err
	}
	return f.check()
}

// check reports whether the folder is there and private.
func (f folder) check() error {
	info, err := os.Stat(string(f))
	if err != nil {
		return err
	}
	return checkMode(string(f), info)
}

func checkMode(path string, info fs.FileInfo) error {
	mode := info.Mode().Perm()
	if runtime.GOOS == "windows" || mode&0o077 == 0 {
		return nil
	}
	return fmt.Errorf("%s is open to others than its owner (mode %04o): chmod go= %s, and if they may have read keys, replace those", path, mode, path)
}

func (f folder) create(name string, signer crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return fmt.Errorf("softkey: key %q: %w", name, err)
	}
	temp, err := f.writeTemp(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}))
	if err != nil {
		return keyError(name, keystore.ErrUnavailable, err)
	}
	defer os.Remove(temp)
	// A link and not a rename, which would replace a key that another process
	// has put there meanwhile.
	err = os.Link(temp, f.file(name))
	if errors.Is(err, fs.ErrExist) {
		return keyError(name, keystore.ErrExists, err)
	}
	if err == nil {
		err = f.sync()
	}
	if err != nil {
		return keyError(name, keystore.ErrUnavailable, err)
	}
	return nil
}

// writeTemp returns the path of a new file that is complete and on the disk.
func (f folder) writeTemp(text []byte) (path string, err error) {
	temp, err := os.CreateTemp(string(f), tempPrefix) // mode 0600
	if err != nil {
		return "", err
	}
	_, err = temp.Write(text)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		os.Remove(temp.Name())
		return "", err
	}
	return temp.Name(), nil
}

// sync puts the folder's entries on the disk, which syncing a file does not.
func (f folder) sync() error {
	if runtime.GOOS == "windows" {
		return nil // has no such operation
	}
	dir, err := os.Open(string(f))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (f folder) open(name string) (keystore.Key, error) {
	text, err := f.read(name)
	if err != nil {
		return nil, err
	}
	key, err := parse(text)
	if err != nil {
		return nil, keyError(name, keystore.ErrCorrupt, fmt.Errorf("%s %w: restore it, or delete the key and enrol with a new one", f.file(name), err))
	}
	return key, nil
}

// read returns the contents of the key's file, at most one byte more than
// maxFileSize of it.
func (f folder) read(name string) ([]byte, error) {
	path := f.file(name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := f.check(); err != nil {
			// A folder that has gone, as one does that is not mounted, must
			// not let OpenOrCreate replace its keys.
			return nil, keyError(name, keystore.ErrUnavailable, err)
		}
		return nil, keyError(name, keystore.ErrNotFound, err)
	}
	if err != nil {
		return nil, keyError(name, keystore.ErrUnavailable, err)
	}
	if !info.Mode().IsRegular() {
		return nil, keyError(name, keystore.ErrCorrupt, fmt.Errorf("%s is not a plain file", path))
	}
	if err := checkMode(path, info); err != nil {
		return nil, keyError(name, keystore.ErrUnavailable, err)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, keyError(name, keystore.ErrUnavailable, err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return nil, keyError(name, keystore.ErrUnavailable, err)
	}
	return text, nil
}

// parse returns the key of a PEM text. Its errors continue "FILE …".
func parse(text []byte) (keystore.Key, error) {
	if len(text) > maxFileSize {
		return nil, errors.New("is too long for a key file")
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("is empty, torn or not PEM")
	}
	if block.Type != blockType || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("is not one unencrypted PKCS#8 %q (openssl pkcs8 -topk8 -nocrypt converts)", blockType)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("holds no PKCS#8 key: %w", err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("holds a %T, which cannot sign", private)
	}
	// The parser does not compare an EC key with the public key beside it. A
	// damaged file would silently be another key.
	if der, err := x509.MarshalPKCS8PrivateKey(signer); err != nil || !bytes.Equal(der, block.Bytes) {
		return nil, errors.New("is damaged, or is PKCS#8 in a form that openssl does not write")
	}
	key, err := keystore.FromSigner(signer)
	if err != nil {
		return nil, fmt.Errorf("holds another kind of key: %w", err)
	}
	return key, nil
}

func (f folder) delete(name string) error {
	if err := f.remove(f.file(name)); err != nil {
		return keyError(name, keystore.ErrUnavailable, err)
	}
	return nil
}

func (f folder) remove(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f.check()
	}
	if err != nil {
		return err
	}
	if err := f.removeTemps(info); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f.sync()
}

// removeTemps removes second names of a key's file. A process that was killed
// between making the link and removing its temporary file leaves one, and the
// key would outlive its deletion there.
func (f folder) removeTemps(key fs.FileInfo) error {
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), tempPrefix) {
			continue
		}
		info, err := entry.Info()
		if err == nil && os.SameFile(info, key) {
			err = os.Remove(filepath.Join(string(f), entry.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (f folder) list() ([]string, error) {
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return nil, fmt.Errorf("softkey: list keys: %w: %w", keystore.ErrUnavailable, err)
	}
	var names []string
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), extension)
		if ok && keystore.CheckName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names) // ReadDir's order is that of the files: a-b.pem before a.pem
	return names, nil
}
