// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
)

// authorized sends a command that is authorized by one session, for its first handle, and
// returns the parameters of the response. names are those of the handles. The session
// encrypts nothing.
//
// It is for commands whose parameters are plain, as query is for those without a session:
// go-tpm compiles 17 KiB for each of its own.
func (c *call) authorized(code tpm2.TPMCC, handles []tpm2.TPMHandle, names []tpm2.TPM2BName, auth tpm2.Session, parameters []byte) (cryptobyte.String, error) {
	if err := auth.NewNonceCaller(); err != nil {
		return nil, err
	}
	command, err := authorizedCommand(code, handles, names, auth, parameters)
	if err != nil {
		return nil, err
	}
	return c.sendAuthorized(code, command, names, auth)
}

// sendAuthorized sends what authorizedCommand has encoded, and returns the parameters of
// the response.
func (c *call) sendAuthorized(code tpm2.TPMCC, command []byte, names []tpm2.TPM2BName, auth tpm2.Session) (cryptobyte.String, error) {
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
		err = auth.Validate(tpm2.TPMRCSuccess, code, parameters, names, 0, authorized)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: command 0x%x: %w", errGarbled, uint32(code), err)
	}
	return parameters, nil
}

// nameOf is the Name of what has no public area: its handle.
func nameOf(handle tpm2.TPMHandle) tpm2.TPM2BName {
	return tpm2.TPM2BName{Buffer: appendHandle(nil, handle)}
}

// authorizedCommand encodes a command with one session, whose nonce is new.
func authorizedCommand(code tpm2.TPMCC, handles []tpm2.TPMHandle, names []tpm2.TPM2BName, auth tpm2.Session, parameters []byte) ([]byte, error) {
	authorization, err := auth.Authorize(code, parameters, nil, names, 0)
	if err != nil {
		return nil, err
	}
	nonce, hmac := authorization.Nonce.Buffer, authorization.Authorization.Buffer
	area := 4 + 2 + len(nonce) + 1 + 2 + len(hmac) // TPMS_AUTH_COMMAND
	size := headerSize + 4*len(handles) + 4 + area + len(parameters)

	command := appendHeader(make([]byte, 0, size), tpm2.TPMSTSessions, size, code)
	for _, handle := range handles {
		command = appendHandle(command, handle)
	}
	command = binary.BigEndian.AppendUint32(command, uint32(area))
	command = appendHandle(command, authorization.Handle)
	command = appendSized(command, nonce)
	command = append(command, sessionOctet(authorization.Attributes))
	command = appendSized(command, hmac)
	return append(command, parameters...), nil
}

// appendSized appends a TPM2B: its size and its octets.
func appendSized(to, octets []byte) []byte {
	return append(binary.BigEndian.AppendUint16(to, uint16(len(octets))), octets...)
}

// The bits of TPMA_SESSION (TPM 2.0 Part 2).
const (
	continueSession = 1 << iota
	auditExclusive
	auditReset
	_
	_
	decrypt
	encrypt
	audit
)

// sessionOctet encodes a TPMA_SESSION.
func sessionOctet(a tpm2.TPMASession) (octet byte) {
	for _, bit := range []struct {
		is    bool
		value byte
	}{
		{a.ContinueSession, continueSession}, {a.AuditExclusive, auditExclusive}, {a.AuditReset, auditReset},
		{a.Decrypt, decrypt}, {a.Encrypt, encrypt}, {a.Audit, audit},
	} {
		if bit.is {
			octet |= bit.value
		}
	}
	return octet
}

// sessionAttributes is the inverse of sessionOctet.
func sessionAttributes(octet byte) tpm2.TPMASession {
	return tpm2.TPMASession{
		ContinueSession: octet&continueSession != 0,
		AuditExclusive:  octet&auditExclusive != 0,
		AuditReset:      octet&auditReset != 0,
		Decrypt:         octet&decrypt != 0,
		Encrypt:         octet&encrypt != 0,
		Audit:           octet&audit != 0,
	}
}

// splitResponse takes the body of a response with one session apart.
func splitResponse(body cryptobyte.String) (parameters []byte, authorized *tpm2.TPMSAuthResponse, err error) {
	const reserved = 0xff &^ (continueSession | auditExclusive | auditReset | decrypt | encrypt | audit)
	var size uint32
	var octet uint8
	var nonce, hmac cryptobyte.String
	if !body.ReadUint32(&size) || !body.ReadBytes(&parameters, int(size)) ||
		!body.ReadUint16LengthPrefixed(&nonce) || !body.ReadUint8(&octet) ||
		!body.ReadUint16LengthPrefixed(&hmac) || !body.Empty() || octet&reserved != 0 {
		return nil, nil, errors.New("not the response of one session")
	}
	return parameters, &tpm2.TPMSAuthResponse{
		Nonce:         tpm2.TPM2BNonce{Buffer: bytes.Clone(nonce)}, // which the session keeps
		Attributes:    sessionAttributes(octet),
		Authorization: tpm2.TPM2BData{Buffer: hmac},
	}, nil
}
