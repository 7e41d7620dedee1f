// SPDX-License-Identifier: Apache-2.0

// Package keyfile reads and writes key files: PEM of the TSS2 format
// (draft-bottomley-tpm2-keys), with blocks of our own after the key. It needs no
// TPM.
//
// Whatever else is in a file stays as it is, octet for octet: byte order mark,
// comments, certificates, the parameters of the curve.
package keyfile

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strconv"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/keyfolder"
	"github.com/instancekey/instancekey/keystore"
)

// The blocks of a key file. The first is the one that other programs know; they
// ignore the others.
const (
	blockKey    = "TSS2 PRIVATE KEY"
	blockOldKey = "TSS2 KEY BLOB"          // openssl_tpm2_engine before 2019
	blockParent = "TPM2 PARENT NAME"       // the Name of the parent, as the TPM has it
	blockHandle = "TPM2 PERSISTENT HANDLE" // where Persist has put the key; 4 bytes: see handles.go

	blockCertificate = "CERTIFICATE" // of whoever put it there

	// Headers of the block of the parent, where it is not what the key says.
	headerHandle   = "Handle"
	headerTemplate = "Template"
)

// File is what a key file says. It is not changed once it is made.
type File struct {
	Text   []byte         // the file; what follows says the same
	Parent Parent         // what the key is wrapped with
	Handle tpm2.TPMHandle // where the key is persistent; 0: nowhere
	tss2                  // what the TSS2 key says
}

// Parent is what a key is wrapped with: a persistent key, or a primary key of the
// owner hierarchy that is made anew each time.
type Parent struct {
	Handle   tpm2.TPMHandle // TPM_RH_OWNER or that of a persistent key
	Template Template       // of the primary key; says nothing of a persistent one
	Name     []byte         // pinned; nil: not known yet, in files made elsewhere
}

// Template names how a primary key is made.
type Template string

// The templates that key files mean by the owner hierarchy.
const (
	StorageRootKey Template = ""           // ECC, H-2 of the TCG EK Credential Profile: that of the format
	RSAParent      Template = "rsa"        // the same as an RSA key, which a file with rsaParent has
	Legacy         Template = "legacy"     // that of the "TSS2 KEY BLOB"
	ToolsECC       Template = "tpm2-tools" // what tpm2_createprimary -G ecc makes, which no file names
	ToolsRSA       Template = "tpm2-tools-rsa"
	Provisioned    Template = "provisioned" // ECC, with a unique field of zeros, as at persistent handles
)

// Parse reads a key file. Errors match keystore.ErrCorrupt, or errors.ErrUnsupported for
// a healthy key: with keystore.ErrPolicy if its policy is not known here, and with
// keystore.ErrUnavailable if it is of a kind that cannot be used here.
func Parse(text []byte) (*File, error) {
	k, err := parse(text)
	switch {
	case err == nil:
		return k, nil
	case errors.Is(err, keystore.ErrPolicy):
		return nil, err
	case errors.Is(err, errors.ErrUnsupported):
		return nil, fmt.Errorf("%w: the file %w", keystore.ErrUnavailable, err)
	default:
		return nil, fmt.Errorf("%w: the file %w", keystore.ErrCorrupt, err)
	}
}

func parse(text []byte) (*File, error) {
	if len(text) > keyfolder.MaxSize {
		return nil, errors.New("is too long for a key file")
	}
	blocks, err := findBlocks(text)
	if err != nil {
		return nil, err
	}
	at := keyBlock(blocks)
	if at < 0 && len(blocks) > 0 {
		return nil, fmt.Errorf("is PEM of a %q and not a %q", blocks[0].Type, blockKey)
	}
	if at < 0 {
		return nil, errors.New("is empty, torn or not PEM")
	}
	key, err := parseTSS2(blocks[at].Bytes)
	if err != nil {
		return nil, err
	}
	k := &File{Text: text, Parent: key.parent, tss2: *key}
	for _, b := range blocks {
		switch {
		case b.Type == blockParent && len(b.Bytes) > 2:
			if k.Parent, err = k.parsePin(b); err != nil {
				return nil, err
			}
		case b.Type == blockHandle && len(b.Bytes) == 4:
			k.Handle = tpm2.TPMHandle(binary.BigEndian.Uint32(b.Bytes))
			if err := CheckPersistent(k.Handle); err != nil {
				return nil, err
			}
		case b.Type == blockParent || b.Type == blockHandle:
			return nil, fmt.Errorf("has a damaged %q", b.Type)
		}
	}
	return k, nil
}

// keyBlock returns the index of the first key, or -1.
func keyBlock(blocks []block) int {
	for i, b := range blocks {
		if b.Type == blockKey || b.Type == blockOldKey {
			return i
		}
	}
	return -1
}

func (k *File) parsePin(b block) (Parent, error) {
	pin := Parent{Handle: k.parent.Handle, Template: k.parent.Template, Name: b.Bytes}
	if template, ok := b.Headers[headerTemplate]; ok {
		pin.Template = Template(template)
	}
	if text, ok := b.Headers[headerHandle]; ok {
		handle, err := strconv.ParseUint(text, 0, 32)
		if err == nil {
			err = CheckPersistent(tpm2.TPMHandle(handle))
		}
		if err != nil {
			return Parent{}, fmt.Errorf("has a damaged %q: %w", b.Type, err)
		}
		pin.Handle = tpm2.TPMHandle(handle)
	}
	return pin, nil
}

// New describes a key that the TPM has just made or imported under a parent. The
// error says what is wrong with what the TPM gave.
func New(parent Parent, public tpm2.TPM2BPublic, private tpm2.TPM2BPrivate, emptyAuth bool, policy Policy) (*File, error) {
	der := encodeTSS2(parent, public, private, emptyAuth, policy)
	key, err := parseTSS2(der)
	if err != nil {
		return nil, err
	}
	k := File{Text: pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der}), Parent: key.parent, tss2: *key}
	return k.WithParent(parent), nil
}

// WithParent returns a copy of k that has the parent pinned.
func (k File) WithParent(p Parent) *File {
	k.Parent = p
	b := pem.Block{Type: blockParent, Bytes: p.Name, Headers: map[string]string{}}
	if p.Handle != k.parent.Handle {
		b.Headers[headerHandle] = fmt.Sprintf("0x%08x", uint32(p.Handle))
	}
	if p.Template != k.parent.Template {
		b.Headers[headerTemplate] = string(p.Template)
	}
	k.Text = setBlock(k.Text, b)
	return &k
}

// WithHandle returns a copy of k that is persistent elsewhere; 0 is nowhere.
func (k File) WithHandle(handle tpm2.TPMHandle) *File {
	k.Handle = handle
	b := pem.Block{Type: blockHandle}
	if handle != 0 {
		b.Bytes = binary.BigEndian.AppendUint32(nil, uint32(handle))
	}
	k.Text = setBlock(k.Text, b)
	return &k
}

// WithEmptyAuth returns a copy of k that says otherwise whether there is a PIN.
func (k File) WithEmptyAuth(empty bool) *File {
	if k.EmptyAuth == empty {
		return &k
	}
	k.EmptyAuth = empty
	k.der = setEmptyAuth(k.der, empty)
	k.Text = setKey(k.Text, k.der)
	return &k
}

// IsKey reports whether two files are of one key.
func (k *File) IsKey(other *File) bool { return bytes.Equal(k.Name.Buffer, other.Name.Buffer) }

// NeedsPIN is what the file says about the PIN, as far as that is to be believed:
// tpm2-tools up to 5.7 says the opposite of what is true. Trying without one is
// free where wrong PINs are not counted.
func (k *File) NeedsPIN() bool {
	if k.UsesPolicy {
		return !k.EmptyAuth && k.Policy.HasAuthValue()
	}
	return !k.EmptyAuth && !k.NoDA
}

// Verify reports whether the signature, r‖s, is the key's.
func (k *File) Verify(digest, signature []byte) bool {
	r, s := new(big.Int).SetBytes(signature[:k.CoordinateSize]), new(big.Int).SetBytes(signature[k.CoordinateSize:])
	return ecdsa.Verify(k.ECDSA, digest, r, s)
}
