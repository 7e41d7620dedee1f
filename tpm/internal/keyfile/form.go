// SPDX-License-Identifier: Apache-2.0

package keyfile

import (
	"errors"
	"math/big"

	formats "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// The optional fields of a TSS2 key (draft-bottomley-tpm2-keys, section 3.1), and
// those of the older "TSS2 KEY BLOB" that have another number there.
var (
	tagEmptyAuth = asn1.Tag(0).ContextSpecific().Constructed()
	tagRSAParent = asn1.Tag(5).ContextSpecific().Constructed()

	tagOldParent = asn1.Tag(1).ContextSpecific().Constructed()
	tagOldPublic = asn1.Tag(2).ContextSpecific().Constructed()
)

// form is how a key was written down.
type form struct {
	normal   []byte // the way that go-tpm-keyfiles reads
	template Template
}

// readForm makes one form of those that other programs write: a parent of 4 octets
// as the negative INTEGER that a 32-bit build makes of it, or 0 for the owner; and
// the older "TSS2 KEY BLOB".
func readForm(der []byte) (*form, error) {
	var body cryptobyte.String
	var kind cryptobyte.String
	in := cryptobyte.String(der)
	if !in.ReadASN1(&body, asn1.SEQUENCE) || !body.ReadASN1Element(&kind, asn1.OBJECT_IDENTIFIER) {
		return nil, errors.New("holds no TSS2 key")
	}
	if isOldKind(kind) {
		return readOldForm(body)
	}
	f := &form{}
	var out cryptobyte.Builder
	parent := int64(-1)
	out.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(kind)
		for !body.Empty() {
			var element cryptobyte.String
			var tag asn1.Tag
			if !body.ReadAnyASN1Element(&element, &tag) {
				b.SetError(errors.New("holds a TSS2 key that is torn"))
				return
			}
			switch {
			case tag == asn1.INTEGER && parent < 0:
				parent = readParent(element)
				b.AddASN1Int64(parent)
				continue
			case tag == tagRSAParent:
				if isTrue(element, tag) {
					f.template = RSAParent
				}
			}
			b.AddBytes(element)
		}
	})
	normal, err := out.Bytes()
	if err != nil {
		return nil, err
	}
	if parent < 0 {
		return nil, errors.New("holds a TSS2 key without a parent")
	}
	f.normal = normal
	return f, nil
}

// isOldKind reports whether a type is that of a "TSS2 KEY BLOB".
func isOldKind(kind cryptobyte.String) bool {
	var old cryptobyte.Builder
	old.AddASN1ObjectIdentifier(formats.OIDOldLoadableKey)
	return string(old.BytesOrPanic()) == string(kind)
}

// readOldForm reads SEQUENCE { type, emptyAuth [0], parent [1], pubkey [2], policy
// [3], privkey }, whose primary key is another one, too.
func readOldForm(body cryptobyte.String) (*form, error) {
	var emptyAuth, public, private cryptobyte.String
	var hasEmptyAuth, hasParent, hasPublic bool
	var parent cryptobyte.String
	handle := int64(tpm2.TPMRHOwner)
	if !body.ReadOptionalASN1(&emptyAuth, &hasEmptyAuth, tagEmptyAuth) ||
		!body.ReadOptionalASN1(&parent, &hasParent, tagOldParent) ||
		!body.ReadOptionalASN1(&public, &hasPublic, tagOldPublic) {
		return nil, errors.New("holds a TSS2 key that is torn")
	}
	if hasParent {
		handle = readParent(parent)
	}
	if body.PeekASN1Tag(asn1.Tag(3).ContextSpecific().Constructed()) {
		return nil, unsupported(`is a "TSS2 KEY BLOB" with a policy`)
	}
	if !body.ReadASN1Element(&private, asn1.OCTET_STRING) || !hasPublic || handle < 0 {
		return nil, errors.New("holds a TSS2 key that is torn")
	}
	var out cryptobyte.Builder
	out.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(formats.OIDLoadableKey)
		if hasEmptyAuth {
			b.AddASN1(tagEmptyAuth, func(b *cryptobyte.Builder) { b.AddBytes(emptyAuth) })
		}
		b.AddASN1Int64(handle)
		b.AddBytes(public)
		b.AddBytes(private)
	})
	normal, err := out.Bytes()
	return &form{normal, Legacy}, err
}

// readParent reads the INTEGER of the parent's handle, or returns -1.
func readParent(element cryptobyte.String) int64 {
	parent := new(big.Int)
	if !element.ReadASN1Integer(parent) || !element.Empty() || !parent.IsInt64() {
		return -1
	}
	switch handle := parent.Int64(); {
	case handle == 0:
		return int64(tpm2.TPMRHOwner)
	case handle < 0 && handle >= -1<<31:
		return int64(uint32(handle))
	case handle > 1<<32-1:
		return -1
	default:
		return handle
	}
}

func isTrue(element cryptobyte.String, tag asn1.Tag) bool {
	var inner, octet cryptobyte.String
	return element.ReadASN1(&inner, tag) && inner.ReadASN1(&octet, asn1.BOOLEAN) && len(octet) == 1 && octet[0] != 0
}

// encodeTSS2 writes a key that the TPM has made.
func encodeTSS2(parent Parent, public tpm2.TPM2BPublic, private tpm2.TPM2BPrivate, emptyAuth bool, policy Policy) []byte {
	der := formats.Marshal(&formats.TPMKey{
		Keytype:   formats.OIDLoadableKey,
		EmptyAuth: emptyAuth,
		Policy:    policy.marshal(),
		Parent:    parent.Handle,
		Pubkey:    public,
		Privkey:   private,
	})
	if !emptyAuth {
		der = setEmptyAuth(der, false)
	}
	return der
}

// setEmptyAuth returns a TSS2 key with another emptyAuth. FALSE is written, too,
// although it may be left out: OpenSSL's tpm2 provider does not ask for the PIN then.
func setEmptyAuth(der []byte, empty bool) []byte {
	in := cryptobyte.String(der)
	var body, kind cryptobyte.String
	if !in.ReadASN1(&body, asn1.SEQUENCE) || !body.ReadASN1Element(&kind, asn1.OBJECT_IDENTIFIER) || !body.SkipOptionalASN1(tagEmptyAuth) {
		return der
	}
	var out cryptobyte.Builder
	out.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(kind)
		b.AddASN1(tagEmptyAuth, func(b *cryptobyte.Builder) { b.AddASN1Boolean(empty) })
		b.AddBytes(body)
	})
	return out.BytesOrPanic()
}
