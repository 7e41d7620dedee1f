// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"encoding/binary"
	"math"
)

// Major types of CBOR (RFC 8949, section 3.1), with their places in the first octet.
const (
	cborNegative = (iota + 1) << 5
	cborBytes
	cborText
	cborArray
	cborMap
)

// es256 is the attestation key's algorithm in COSE's terms (RFC 9053), -7, as the argument
// of a negative integer.
const es256 = 6

// appendStatement appends the attestation object of draft-ietf-acme-device-attest: that of
// W3C Web Authentication, section 6.5, without authData. Its statement is that of section
// 8.3. The members of a map are in the order that CTAP2 wants.
//
// It is written here since it is the only CBOR of a device, and always the same: a library
// for all of CBOR is 220 KiB of a program for a small device.
func appendStatement(to []byte, p *proof, public []byte, certificates [][]byte) []byte {
	to = appendCBOR(to, cborMap, 2)
	to = appendText(appendText(to, "fmt"), "tpm")
	members := 5
	if len(certificates) > 0 {
		members++
	}
	to = appendCBOR(appendText(to, "attStmt"), cborMap, members)
	to = appendCBOR(appendText(to, "alg"), cborNegative, es256)
	to = appendBytes(appendText(to, "sig"), p.signature)
	to = appendText(appendText(to, "ver"), "2.0")
	if len(certificates) > 0 {
		to = appendCBOR(appendText(to, "x5c"), cborArray, len(certificates))
		for _, certificate := range certificates {
			to = appendBytes(to, certificate)
		}
	}
	to = appendBytes(appendText(to, "pubArea"), public)
	return appendBytes(appendText(to, "certInfo"), p.certifyInfo)
}

// appendCBOR appends the head of a data item, in the shortest form.
func appendCBOR(to []byte, major byte, argument int) []byte {
	switch {
	case argument < 24:
		return append(to, major|byte(argument))
	case argument <= math.MaxUint8:
		return append(to, major|24, byte(argument))
	case argument <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(to, major|25), uint16(argument))
	default:
		return binary.BigEndian.AppendUint32(append(to, major|26), uint32(argument))
	}
}

func appendText(to []byte, s string) []byte {
	return append(appendCBOR(to, cborText, len(s)), s...)
}

func appendBytes(to, octets []byte) []byte {
	return append(appendCBOR(to, cborBytes, len(octets)), octets...)
}
