package keyfile

import (
	"bytes"
	"errors"
	"fmt"

	tss2 "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// New describes a key that the TPM has just made or imported under a parent. The
// error says what is wrong with what the TPM gave.
func New(parentName []byte, parent tpm2.TPMHandle, public tpm2.TPM2BPublic, private tpm2.TPM2BPrivate, emptyAuth bool, policy Policy) (*File, error) {
	der := tss2.Marshal(&tss2.TPMKey{
		Keytype:   tss2.OIDLoadableKey,
		EmptyAuth: emptyAuth,
		Policy:    policy.marshal(),
		Parent:    parent,
		Pubkey:    public,
		Privkey:   private,
	})
	if !emptyAuth {
		der = setEmptyAuth(der, false)
	}
	k, err := parseTSS2(der)
	if err != nil {
		return nil, err
	}
	return k.With(parentName, 0), nil
}

// setEmptyAuth returns a TSS2 key with another emptyAuth. FALSE is written, too,
// although it may be left out: OpenSSL's tpm2 provider does not ask for the PIN then.
func setEmptyAuth(der []byte, empty bool) []byte {
	tag := asn1.Tag(0).ContextSpecific().Constructed()
	in := cryptobyte.String(der)
	var body, keyType cryptobyte.String
	if !in.ReadASN1(&body, asn1.SEQUENCE) || !body.ReadASN1Element(&keyType, asn1.OBJECT_IDENTIFIER) || !body.SkipOptionalASN1(tag) {
		return der
	}
	var out cryptobyte.Builder
	out.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(keyType)
		b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddASN1Boolean(empty) })
		b.AddBytes(body)
	})
	return out.BytesOrPanic()
}

// WithEmptyAuth returns a copy of k that says otherwise whether there is a PIN.
func (k File) WithEmptyAuth(empty bool) *File {
	k.tss2, k.EmptyAuth = setEmptyAuth(k.tss2, empty), empty
	return k.With(k.ParentName, k.Handle)
}

// parseTSS2 reads a TSS2 key (draft-bottomley-tpm2-keys) and checks that it is
// one that can sign for us.
func parseTSS2(der []byte) (*File, error) {
	key, err := tss2.Parse(der)
	if err != nil {
		return nil, fmt.Errorf("holds no TSS2 key: %w", err)
	}
	k := &File{
		tss2:       der,
		Importable: key.Keytype.Equal(tss2.OIDImportableKey),
		Parent:     key.Parent,
		Public:     key.Pubkey,
		Private:    key.Privkey,
		Secret:     key.Secret,
		EmptyAuth:  key.EmptyAuth,
	}
	if !k.Importable && !key.Keytype.Equal(tss2.OIDLoadableKey) {
		return nil, fmt.Errorf("is a TSS2 key of type %v, which is no loadable key", key.Keytype)
	}
	if k.Parent != tpm2.TPMRHOwner && CheckPersistent(k.Parent) != nil {
		return nil, fmt.Errorf("has the parent 0x%08x: only the owner hierarchy (0x40000001) and persistent keys are known here", uint32(k.Parent))
	}
	if len(k.Private.Buffer) == 0 {
		return nil, errors.New("has no private part")
	}
	authPolicy, err := k.readPublic()
	if err != nil {
		return nil, err
	}
	if !k.UsesPolicy {
		return k, nil
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

// readPublic fills in what the public area says. go-tpm-keyfiles' own helpers
// panic on one that makes no sense.
func (k *File) readPublic() (authPolicy []byte, err error) {
	area := k.Public // a copy, since Contents changes what it is called on
	public, err := area.Contents()
	if err != nil {
		return nil, fmt.Errorf("has a public area that is none: %w", err)
	}
	parameters, err := public.Parameters.ECCDetail()
	if err != nil {
		return nil, errors.New("is no elliptic curve key: only ECDSA on P-256 and P-384 is known here")
	}
	point, err := public.Unique.ECC()
	if err != nil {
		return nil, fmt.Errorf("has no public point: %w", err)
	}
	if !bytes.Equal(tpm2.Marshal(*public), k.Public.Bytes()) {
		return nil, errors.New("has a public area with something else in it")
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
		return nil, errors.New("is no signing key, or a restricted one, which signs no JWTs")
	}
	if k.ECDSA, err = k.publicKey(point); err != nil {
		return nil, err
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, fmt.Errorf("has a Name of an unknown hash: %w", err)
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
