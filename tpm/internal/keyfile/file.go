// Package keyfile reads and writes key files: PEM of the TSS2 format
// (draft-bottomley-tpm2-keys), with blocks of our own after the key. It needs no
// TPM.
package keyfile

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/keyfolder"
	"github.com/instancekey/instancekey/keystore"
)

// The blocks of a key file. The first is the one that other programs know; they
// ignore what follows.
const (
	blockKey    = "TSS2 PRIVATE KEY"
	blockParent = "TPM2 PARENT NAME"       // the Name of the parent, as the TPM has it
	blockHandle = "TPM2 PERSISTENT HANDLE" // where Persist has put the key; 4 bytes
)

// File is what a key file says. It is not changed once it is made.
type File struct {
	Text       []byte         // the file as Store writes it; what follows says the same
	tss2       []byte         // the TSS2 key: ASN.1 DER
	ParentName []byte         // pinned when the key was made; nil in files made elsewhere
	Handle     tpm2.TPMHandle // where the key is persistent; 0: nowhere
	others     []byte         // blocks that mean nothing here, such as certificates

	// What the TSS2 key says.

	Importable bool // still wrapped the way it was sent, see Import
	Parent     tpm2.TPMHandle
	Public     tpm2.TPM2BPublic
	Private    tpm2.TPM2BPrivate
	Secret     tpm2.TPM2BEncryptedSecret // of an importable key
	EmptyAuth  bool
	Policy     Policy // nil unless UsesPolicy

	// What Public says.

	Algorithm
	Scheme     []byte // TPMT_SIG_SCHEME, to be said with each signature: null where the key has it
	Name       tpm2.TPM2BName
	NameAlg    tpm2.TPMIAlgHash
	UsesPolicy bool // the policy is the only authorization
	NoDA       bool // a wrong PIN does not count toward a lockout
	ECDSA      *ecdsa.PublicKey

	AdminWithPolicy bool // TPM2_Certify takes a policy
}

// Parse reads a key file. Errors match keystore.ErrCorrupt, or
// keystore.ErrPolicy for a policy that is not known here.
func Parse(text []byte) (*File, error) {
	k, err := decodeKeyFile(text)
	if err != nil && !errors.Is(err, keystore.ErrPolicy) {
		return nil, fmt.Errorf("%w: the file %w", keystore.ErrCorrupt, err)
	}
	return k, err
}

func decodeKeyFile(text []byte) (*File, error) {
	if len(text) > keyfolder.MaxSize {
		return nil, errors.New("is too long for a key file")
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("is empty, torn or not PEM")
	}
	if block.Type != blockKey {
		return nil, fmt.Errorf("is PEM of a %q and not a %q", block.Type, blockKey)
	}
	k, err := parseTSS2(block.Bytes)
	if err != nil {
		return nil, err
	}
	var parentName []byte
	var handle tpm2.TPMHandle
	for {
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && len(bytes.TrimSpace(rest)) > 0:
			return nil, errors.New("is torn")
		case block == nil:
			return k.With(parentName, handle), nil
		case block.Type == blockParent && len(block.Bytes) > 2:
			parentName = block.Bytes
		case block.Type == blockHandle && len(block.Bytes) == 4:
			handle = tpm2.TPMHandle(binary.BigEndian.Uint32(block.Bytes))
			if err := CheckPersistent(handle); err != nil {
				return nil, err
			}
		case block.Type == blockParent || block.Type == blockHandle:
			return nil, fmt.Errorf("has a damaged %q", block.Type)
		default:
			k.others = append(k.others, pem.EncodeToMemory(block)...)
		}
	}
}

// With returns a copy of k with other blocks after the first.
func (k File) With(parentName []byte, handle tpm2.TPMHandle) *File {
	k.ParentName, k.Handle = parentName, handle
	k.Text = pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: k.tss2})
	if parentName != nil {
		k.Text = append(k.Text, pem.EncodeToMemory(&pem.Block{Type: blockParent, Bytes: parentName})...)
	}
	if handle != 0 {
		octets := binary.BigEndian.AppendUint32(nil, uint32(handle))
		k.Text = append(k.Text, pem.EncodeToMemory(&pem.Block{Type: blockHandle, Bytes: octets})...)
	}
	k.Text = append(k.Text, k.others...)
	return &k
}

// IsKey reports whether two files are of one key.
func (k *File) IsKey(other *File) bool { return bytes.Equal(k.Name.Buffer, other.Name.Buffer) }

// NeedsPIN is what the file says about the PIN, as far as that is to be believed:
// tpm2-tools 5.4 says the opposite of what is true. Trying without one is free
// where wrong PINs are not counted.
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
