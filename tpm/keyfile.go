package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

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

// keyFile is what a key file says. It is not changed once it is made.
type keyFile struct {
	text       []byte         // the file as Store writes it; what follows says the same
	tss2       []byte         // the TSS2 key: ASN.1 DER
	parentName []byte         // pinned when the key was made; nil in files made elsewhere
	handle     tpm2.TPMHandle // where the key is persistent; 0: nowhere
	others     []byte         // blocks that mean nothing here, such as certificates

	// What tss2 says.

	importable bool // still wrapped the way it was sent, see Import
	parent     tpm2.TPMHandle
	public     tpm2.TPM2BPublic
	private    tpm2.TPM2BPrivate
	secret     tpm2.TPM2BEncryptedSecret // of an importable key
	emptyAuth  bool
	policy     []policyStep // nil unless usesPolicy

	// What public says.

	algorithm
	scheme     []byte // TPMT_SIG_SCHEME, to be said with each signature: null where the key has it
	name       tpm2.TPM2BName
	nameAlg    tpm2.TPMIAlgHash
	usesPolicy bool // the policy is the only authorization
	noDA       bool // a wrong PIN does not count toward a lockout
	ecdsa      *ecdsa.PublicKey
}

// parseKeyFile reads a key file. Errors match keystore.ErrCorrupt, or
// keystore.ErrPolicy for a policy that is not known here.
func parseKeyFile(text []byte) (*keyFile, error) {
	k, err := decodeKeyFile(text)
	if err != nil && !errors.Is(err, keystore.ErrPolicy) {
		return nil, fmt.Errorf("%w: the file %w", keystore.ErrCorrupt, err)
	}
	return k, err
}

func decodeKeyFile(text []byte) (*keyFile, error) {
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
			return k.with(parentName, handle), nil
		case block.Type == blockParent && len(block.Bytes) > 2:
			parentName = block.Bytes
		case block.Type == blockHandle && len(block.Bytes) == 4:
			handle = tpm2.TPMHandle(binary.BigEndian.Uint32(block.Bytes))
			if err := checkPersistent(handle); err != nil {
				return nil, err
			}
		case block.Type == blockParent || block.Type == blockHandle:
			return nil, fmt.Errorf("has a damaged %q", block.Type)
		default:
			k.others = append(k.others, pem.EncodeToMemory(block)...)
		}
	}
}

// with returns a copy of k with other blocks after the first.
func (k keyFile) with(parentName []byte, handle tpm2.TPMHandle) *keyFile {
	k.parentName, k.handle = parentName, handle
	k.text = pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: k.tss2})
	if parentName != nil {
		k.text = append(k.text, pem.EncodeToMemory(&pem.Block{Type: blockParent, Bytes: parentName})...)
	}
	if handle != 0 {
		octets := binary.BigEndian.AppendUint32(nil, uint32(handle))
		k.text = append(k.text, pem.EncodeToMemory(&pem.Block{Type: blockHandle, Bytes: octets})...)
	}
	k.text = append(k.text, k.others...)
	return &k
}

// isKey reports whether two files are of one key.
func (k *keyFile) isKey(other *keyFile) bool { return bytes.Equal(k.name.Buffer, other.name.Buffer) }

// newKeyFile describes a key that the TPM has just made or imported.
func newKeyFile(p *parent, parentHandle tpm2.TPMHandle, public tpm2.TPM2BPublic, private tpm2.TPM2BPrivate, emptyAuth bool, policy []*keyfile.TPMPolicy) (*keyFile, error) {
	der := keyfile.Marshal(&keyfile.TPMKey{
		Keytype:   keyfile.OIDLoadableKey,
		EmptyAuth: emptyAuth,
		Policy:    policy,
		Parent:    parentHandle,
		Pubkey:    public,
		Privkey:   private,
	})
	if !emptyAuth {
		der = setEmptyAuth(der, false)
	}
	k, err := parseTSS2(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGarbled, err)
	}
	return k.with(p.Name.Buffer, 0), nil
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

// withEmptyAuth returns a copy of k that says otherwise whether there is a PIN.
func (k keyFile) withEmptyAuth(empty bool) *keyFile {
	k.tss2, k.emptyAuth = setEmptyAuth(k.tss2, empty), empty
	return k.with(k.parentName, k.handle)
}

// parseTSS2 reads a TSS2 key (draft-bottomley-tpm2-keys) and checks that it is
// one that can sign for us.
func parseTSS2(der []byte) (*keyFile, error) {
	key, err := keyfile.Parse(der)
	if err != nil {
		return nil, fmt.Errorf("holds no TSS2 key: %w", err)
	}
	k := &keyFile{
		tss2:       der,
		importable: key.Keytype.Equal(keyfile.OIDImportableKey),
		parent:     key.Parent,
		public:     key.Pubkey,
		private:    key.Privkey,
		secret:     key.Secret,
		emptyAuth:  key.EmptyAuth,
	}
	if !k.importable && !key.Keytype.Equal(keyfile.OIDLoadableKey) {
		return nil, fmt.Errorf("is a TSS2 key of type %v, which is no loadable key", key.Keytype)
	}
	if k.parent != tpm2.TPMRHOwner && checkPersistent(k.parent) != nil {
		return nil, fmt.Errorf("has the parent 0x%08x: only the owner hierarchy (0x40000001) and persistent keys are known here", uint32(k.parent))
	}
	if len(k.private.Buffer) == 0 {
		return nil, errors.New("has no private part")
	}
	authPolicy, err := k.readPublic()
	if err != nil {
		return nil, err
	}
	if !k.usesPolicy {
		return k, nil
	}
	if k.policy, err = parsePolicy(key.Policy); err != nil {
		return nil, err
	}
	digest, err := policyDigest(k.policy, k.nameAlg)
	if err != nil || !bytes.Equal(digest, authPolicy) {
		return nil, errors.New("says another policy than its key has")
	}
	return k, nil
}

// readPublic fills in what the public area says. go-tpm-keyfiles' own helpers
// panic on one that makes no sense.
func (k *keyFile) readPublic() (authPolicy []byte, err error) {
	area := k.public // a copy, since Contents changes what it is called on
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
	if !bytes.Equal(tpm2.Marshal(*public), k.public.Bytes()) {
		return nil, errors.New("has a public area with something else in it")
	}
	if k.algorithm, err = findAlgorithm(parameters); err != nil {
		return nil, err
	}
	scheme := tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}
	if parameters.Scheme.Scheme == tpm2.TPMAlgNull {
		scheme = tpm2.TPMTSigScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: k.hashAlg}),
		}
	}
	k.scheme = tpm2.Marshal(scheme)
	if attributes := public.ObjectAttributes; !attributes.SignEncrypt || attributes.Restricted {
		return nil, errors.New("is no signing key, or a restricted one, which signs no JWTs")
	}
	if k.ecdsa, err = k.publicKey(point); err != nil {
		return nil, err
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, fmt.Errorf("has a Name of an unknown hash: %w", err)
	}
	k.name = *name
	k.nameAlg = public.NameAlg
	k.usesPolicy = !public.ObjectAttributes.UserWithAuth
	k.noDA = public.ObjectAttributes.NoDA
	return public.AuthPolicy.Buffer, nil
}

// checkPersistent refuses what is no handle of a persistent object.
func checkPersistent(handle tpm2.TPMHandle) error {
	if handle>>24 != tpm2.TPMHandle(tpm2.TPMHTPersistent) {
		return fmt.Errorf("0x%08x is no handle of a persistent key: those are 0x81000000 to 0x81ffffff", uint32(handle))
	}
	return nil
}
