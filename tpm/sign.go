package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// verifiedFor is how long a loaded key is taken for what it was when a signature of it
// was last verified, which takes no command.
const verifiedFor = time.Second

// noTicket says that the digest to be signed was not made by the TPM, which only
// a restricted key would mind.
var noTicket = tpm2.Marshal(tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull})

// signDigest sends TPM2_Sign (TPM 2.0 Part 3, "TPM2_Sign") for the loaded key and
// returns r‖s.
//
// It is the one command that every request waits for, and the only one that is
// put together here. go-tpm finds out by reflection what a command looks like,
// which takes longer than all else that is done for a signature outside of the
// TPM, and most of all on a device with a small processor. Its sessions and
// structures are used here, too.
func (c *call) signDigest(k *keyfile.File, auth tpm2.Session, digest []byte) ([]byte, error) {
	if err := auth.NewNonceCaller(); err != nil {
		return nil, err
	}
	names := []tpm2.TPM2BName{k.Name}
	command, err := signCommand(c.key.handle, names, k.Scheme, auth, digest)
	if err != nil {
		return nil, err
	}
	response, err := c.Send(command)
	if err != nil {
		return nil, err
	}
	header, body := response[:headerSize], cryptobyte.String(response[headerSize:])
	if code := responseCode(header); code != tpm2.TPMRCSuccess {
		return nil, code
	}
	parameters, authorized, err := splitResponse(body)
	if err == nil {
		err = auth.Validate(tpm2.TPMRCSuccess, tpm2.TPMCCSign, parameters, names, 0, authorized)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: TPM2_Sign: %w", errGarbled, err)
	}
	return joinSignature(k, parameters)
}

// signCommand encodes the command. auth encrypts the digest, if it does that.
func signCommand(handle tpm2.TPMHandle, names []tpm2.TPM2BName, scheme []byte, auth tpm2.Session, digest []byte) ([]byte, error) {
	digest = bytes.Clone(digest)
	if err := auth.Encrypt(digest); err != nil {
		return nil, err
	}
	var parameters cryptobyte.Builder
	parameters.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(digest) })
	parameters.AddBytes(scheme)
	parameters.AddBytes(noTicket)

	authorization, err := auth.Authorize(tpm2.TPMCCSign, parameters.BytesOrPanic(), nil, names, 0)
	if err != nil {
		return nil, err
	}
	var area cryptobyte.Builder // TPMS_AUTH_COMMAND
	area.AddUint32(uint32(authorization.Handle))
	area.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(authorization.Nonce.Buffer) })
	area.AddBytes(tpm2.Marshal(authorization.Attributes))
	area.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(authorization.Authorization.Buffer) })

	body := binary.BigEndian.AppendUint32(nil, uint32(handle))
	body = binary.BigEndian.AppendUint32(body, uint32(len(area.BytesOrPanic())))
	body = slices.Concat(body, area.BytesOrPanic(), parameters.BytesOrPanic())
	return newCommand(tpm2.TPMSTSessions, tpm2.TPMCCSign, body), nil
}

// splitResponse takes the body of a response with one session apart.
func splitResponse(body cryptobyte.String) (parameters []byte, authorized *tpm2.TPMSAuthResponse, err error) {
	var size uint32
	var nonce, octet, hmac []byte
	if !body.ReadUint32(&size) || !body.ReadBytes(&parameters, int(size)) ||
		!body.ReadUint16LengthPrefixed((*cryptobyte.String)(&nonce)) || !body.ReadBytes(&octet, 1) ||
		!body.ReadUint16LengthPrefixed((*cryptobyte.String)(&hmac)) || !body.Empty() {
		return nil, nil, errors.New("a response of the wrong length")
	}
	attributes, err := tpm2.Unmarshal[tpm2.TPMASession](octet)
	if err != nil {
		return nil, nil, err
	}
	return parameters, &tpm2.TPMSAuthResponse{
		Nonce:         tpm2.TPM2BNonce{Buffer: bytes.Clone(nonce)}, // which the session keeps
		Attributes:    *attributes,
		Authorization: tpm2.TPM2BData{Buffer: hmac},
	}, nil
}

// joinSignature makes r‖s of a TPMT_SIGNATURE. A TPM may leave out leading zeros.
func joinSignature(k *keyfile.File, encoded cryptobyte.String) ([]byte, error) {
	var alg, hash uint16
	var r, s cryptobyte.String
	if !encoded.ReadUint16(&alg) || !encoded.ReadUint16(&hash) ||
		!encoded.ReadUint16LengthPrefixed(&r) || !encoded.ReadUint16LengthPrefixed(&s) || !encoded.Empty() ||
		tpm2.TPMAlgID(alg) != tpm2.TPMAlgECDSA || tpm2.TPMAlgID(hash) != k.HashAlg {
		return nil, fmt.Errorf("%w: TPM2_Sign: no ECDSA signature", errGarbled)
	}
	joined := make([]byte, 2*k.CoordinateSize)
	for i, part := range [][]byte{r, s} {
		part = bytes.TrimLeft(part, "\x00")
		if len(part) > k.CoordinateSize {
			return nil, fmt.Errorf("%w: a signature of %d bytes", errGarbled, len(part))
		}
		copy(joined[(i+1)*k.CoordinateSize-len(part):], part)
	}
	return joined, nil
}
