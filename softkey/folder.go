// SPDX-License-Identifier: Apache-2.0

package softkey

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/instancekey/instancekey/internal/keyfolder"
	"github.com/instancekey/instancekey/keystore"
)

const blockType = "PRIVATE KEY"

// OpenDir returns a Store over a folder. It makes the folder, with mode 0700, if
// it is not there. The key NAME is the file NAME.pem with mode 0600: one
// unencrypted PKCS#8 key (RFC 5958) in PEM (RFC 7468), as "openssl genpkey"
// writes them; an operator may put such a file there. P-256, P-384, P-521 and
// Ed25519 keys can be used.
//
// Several processes may use one folder. A key appears under its name complete
// and on the disk, or not at all, and no key is ever written over. The folder's
// file system must have hard links (FAT has none).
//
// It fails if others than its owner may write to the folder.
//
// The Store's errors match keystore.ErrCorrupt for a file that is empty, torn or damaged,
// that contains no such key, or that is not a plain file. The Store does not follow
// symbolic links, because Delete could not destroy what they point to. Errors match
// keystore.ErrUnavailable for a file that others than its owner may read, and if the
// operating system refuses; the cause is then an [fs.PathError]. On Windows
// access control lists are made and checked instead of modes: those of the owner, SYSTEM
// and Administrators. There, letters in upper case and the names of devices are escaped
// in a file's name: MyKey is in +my+key.pem, and nul in nul+.pem.
func OpenDir(dir string) (*Store, error) {
	if dir == "" {
		return nil, errors.New("softkey: no folder given")
	}
	f, err := keyfolder.Open("softkey", dir)
	if err != nil {
		return nil, err
	}
	return &Store{folder{f}}, nil
}

// folder keeps keys as files.
type folder struct{ keyfolder.Folder }

func (f folder) create(name string, signer crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return fmt.Errorf("softkey: key %q: %w", name, err)
	}
	return f.Create(name, pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}))
}

func (f folder) open(name string) (keystore.Key, error) {
	text, err := f.Read(name)
	if err != nil {
		return nil, err
	}
	key, err := parse(text)
	if err != nil {
		return nil, f.Error(name, keystore.ErrCorrupt, fmt.Errorf("%s %w: restore it, or delete the key and enrol with a new one", f.File(name), err))
	}
	return key, nil
}

func (f folder) delete(name string) error { return f.Delete(name, nil) }
func (f folder) list() ([]string, error)  { return f.List() }

// parse returns the key of a PEM text. Its errors continue "FILE …".
func parse(text []byte) (keystore.Key, error) {
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
