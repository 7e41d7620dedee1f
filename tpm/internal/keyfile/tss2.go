// SPDX-License-Identifier: Apache-2.0

package keyfile

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"fmt"

	formats "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
)

// tss2 is what a TSS2 key says.
type tss2 struct {
	der        []byte
	parent     Parent // without the Name
	Importable bool   // still wrapped the way it was sent, see Store.Import
	Public     tpm2.TPM2BPublic
	Private    tpm2.TPM2BPrivate
	Secret     tpm2.TPM2BEncryptedSecret // of an importable key
	EmptyAuth  bool
	Policy     Policy // nil unless UsesPolicy

	// What Public says.

	Algorithm
	Scheme          []byte // TPMT_SIG_SCHEME, to be said with each signature: null where the key has it
	Name            tpm2.TPM2BName
	NameAlg         tpm2.TPMIAlgHash
	UsesPolicy      bool // the policy is the only authorization
	NoDA            bool // a wrong PIN does not count toward a lockout
	AdminWithPolicy bool // TPM2_Certify takes a policy
	ECDSA           *ecdsa.PublicKey
}

// unsupportedError is why a healthy key cannot be used here. It matches
// errors.ErrUnsupported.
type unsupportedError string

func (e unsupportedError) Error() string        { return string(e) }
func (e unsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

func unsupported(format string, args ...any) error {
	return unsupportedError(fmt.Sprintf(format, args...))
}

// parseTSS2 reads a TSS2 key (draft-bottomley-tpm2-keys) and checks that it is
// one that can sign for us.
func parseTSS2(der []byte) (*tss2, error) {
	form, err := readForm(der)
	if err != nil {
		return nil, err
	}
	key, err := formats.Parse(form.normal)
	if err != nil {
		return nil, fmt.Errorf("holds no TSS2 key: %w", err)
	}
	k := &tss2{
		der:        der,
		parent:     Parent{Handle: key.Parent, Template: form.template},
		Importable: key.Keytype.Equal(formats.OIDImportableKey),
		Public:     key.Pubkey,
		Private:    key.Privkey,
		Secret:     key.Secret,
		EmptyAuth:  key.EmptyAuth,
	}
	if !k.Importable && !key.Keytype.Equal(formats.OIDLoadableKey) {
		return nil, unsupported("is a TSS2 key of type %v, which is no loadable key", key.Keytype)
	}
	if len(k.Private.Buffer) == 0 {
		return nil, errors.New("has no private part")
	}
	authPolicy, err := k.readPublic()
	if err != nil {
		return nil, err
	}
	if err := checkParent(k.parent.Handle); err != nil {
		return nil, err
	}
	if !k.UsesPolicy {
		return k, nil
	}
	if len(authPolicy) == 0 {
		return nil, unsupported("is of a key that has neither userWithAuth nor a policy, so that nobody can use it")
	}
	if len(key.Policy) == 0 {
		return nil, fmt.Errorf("%w: %w: the key takes a policy, and its file does not say which: have the program that made the key write it there", keystore.ErrPolicy, errors.ErrUnsupported)
	}
	if k.Policy, err = parsePolicy(key.Policy); err != nil {
		return nil, err
	}
	digest, err := k.Policy.Digest(k.NameAlg)
	if err != nil || !bytes.Equal(digest, authPolicy) {
		return nil, errors.New("says another policy than its key has")
	}
	return k, nil
}

// checkParent refuses what is no parent, or one that is not known here.
func checkParent(handle tpm2.TPMHandle) error {
	if handle == tpm2.TPMRHOwner || CheckPersistent(handle) == nil {
		return nil
	}
	for _, hierarchy := range []tpm2.TPMHandle{tpm2.TPMRHNull, tpm2.TPMRHEndorsement, tpm2.TPMRHPlatform} {
		if handle == hierarchy {
			return unsupported("has a parent in the hierarchy 0x%08x: only the owner hierarchy (0x40000001) and persistent keys are known here", uint32(handle))
		}
	}
	return fmt.Errorf("has the parent 0x%08x, which is none", uint32(handle))
}

// readPublic fills in what the public area says. go-tpm-keyfiles' own helpers
// panic on one that makes no sense.
func (k *tss2) readPublic() (authPolicy []byte, err error) {
	area := k.Public // a copy, since Contents changes what it is called on
	public, err := area.Contents()
	if err != nil {
		return nil, fmt.Errorf("has a public area that is none: %w", err)
	}
	if !bytes.Equal(tpm2.Marshal(*public), k.Public.Bytes()) {
		return nil, errors.New("has a public area with something else in it")
	}
	parameters, err := public.Parameters.ECCDetail()
	if err != nil {
		return nil, unsupported("is no elliptic curve key: only ECDSA on P-256 and P-384 is known here")
	}
	point, err := public.Unique.ECC()
	if err != nil {
		return nil, fmt.Errorf("has no public point: %w", err)
	}
	if k.Algorithm, err = findAlgorithm(parameters); err != nil {
		return nil, err
	}
	scheme := tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}
	if parameters.Scheme.Scheme == tpm2.TPMAlgNull {
		scheme = tpm2.TPMTSigScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: k.HashAlg}),
		}
	}
	k.Scheme = tpm2.Marshal(scheme)
	if attributes := public.ObjectAttributes; !attributes.SignEncrypt || attributes.Restricted {
		return nil, unsupported("is no signing key, or a restricted one, which signs no JWTs")
	}
	if k.ECDSA, err = k.publicKey(point); err != nil {
		return nil, err
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, unsupported("has a Name of a hash that is not known here: %v", err)
	}
	k.Name = *name
	k.NameAlg = public.NameAlg
	k.UsesPolicy = !public.ObjectAttributes.UserWithAuth
	k.NoDA = public.ObjectAttributes.NoDA
	k.AdminWithPolicy = public.ObjectAttributes.AdminWithPolicy
	return public.AuthPolicy.Buffer, nil
}

// CheckPersistent refuses what is no handle of a persistent object.
func CheckPersistent(handle tpm2.TPMHandle) error {
	if handle>>24 != tpm2.TPMHandle(tpm2.TPMHTPersistent) {
		return fmt.Errorf("0x%08x is no handle of a persistent key: those are 0x81000000 to 0x81ffffff", uint32(handle))
	}
	return nil
}
