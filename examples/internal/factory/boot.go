// SPDX-License-Identifier: Apache-2.0

package factory

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"unicode/utf16"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Event types (TCG PC Client Platform Firmware Profile, section 10.4.1).
const (
	eventNoAction          = 0x00000003
	eventSeparator         = 0x00000004
	eventCRTMVersion       = 0x00000008
	eventVariable          = 0x80000001
	eventBootApplication   = 0x80000003
	eventVariableAuthority = 0x800000e0
)

// An Event is something that firmware measures.
type Event struct {
	PCR  int
	Type uint32
	Data []byte // what the log says
	// Digest is what the PCR is extended with; nil: the SHA-256 digest of Data.
	Digest []byte
}

// Firmware is what a device boots.
type Firmware struct {
	Version    string // of the firmware itself: PCR 0
	Loader     []byte // the operating system's loader: PCR 4
	SecureBoot bool   // PCR 7
	// Authority has signed the loader, and is the only one that Secure Boot knows.
	Authority *x509.Certificate
}

// Events returns what UEFI firmware measures into PCRs 0, 4 and 7.
func (f *Firmware) Events() []Event {
	loader := sha256.Sum256(f.Loader)
	signer := append(make([]byte, 16), f.Authority.Raw...) // EFI_SIGNATURE_DATA: owner and certificate
	known := signatureList(signer)
	on := []byte{0}
	if f.SecureBoot {
		on[0] = 1
	}
	separator := make([]byte, 4)
	events := []Event{
		{PCR: 0, Type: eventCRTMVersion, Data: utf16le(f.Version + "\x00")},
		{PCR: 7, Type: eventVariable, Data: variable("SecureBoot", on)},
		{PCR: 7, Type: eventVariable, Data: variable("PK", known)},
		{PCR: 7, Type: eventVariable, Data: variable("KEK", known)},
		{PCR: 7, Type: eventVariable, Data: variable("db", known)},
		{PCR: 7, Type: eventVariable, Data: variable("dbx", nil)},
		{PCR: 0, Type: eventSeparator, Data: separator},
		{PCR: 4, Type: eventSeparator, Data: separator},
		{PCR: 7, Type: eventSeparator, Data: separator},
	}
	if f.SecureBoot {
		events = append(events, Event{PCR: 7, Type: eventVariableAuthority, Data: variable("db", signer)})
	}
	// A loader is measured by its digest; the log has where it was found.
	return append(events, Event{PCR: 4, Type: eventBootApplication, Data: imageLoad(`\EFI\BOOT\BOOTX64.EFI`, len(f.Loader)), Digest: loader[:]})
}

// Boot extends the PCRs of a TPM that has just been started with what the
// firmware measures, and returns the boot log.
func Boot(tpm transport.TPM, f *Firmware) (log []byte, err error) {
	events := f.Events()
	for _, event := range events {
		if err := Measure(tpm, event); err != nil {
			return nil, err
		}
	}
	return Log(events), nil
}

// Measure extends a PCR, of the SHA-256 bank.
func Measure(tpm transport.TPM, event Event) error {
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(event.PCR), Auth: tpm2.PasswordAuth(nil)},
		Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{
			HashAlg: tpm2.TPMAlgSHA256,
			Digest:  event.digest(),
		}}},
	}.Execute(tpm)
	if err != nil {
		return fmt.Errorf("factory: extend PCR %d: %w", event.PCR, err)
	}
	return nil
}

// Values returns the PCRs after a boot.
func Values(f *Firmware) map[int][]byte {
	values := make(map[int][]byte)
	for _, event := range f.Events() {
		if values[event.PCR] == nil {
			values[event.PCR] = make([]byte, sha256.Size)
		}
		next := sha256.Sum256(append(values[event.PCR], event.digest()...))
		values[event.PCR] = next[:]
	}
	return values
}

func (e Event) digest() []byte {
	if e.Digest != nil {
		return e.Digest
	}
	digest := sha256.Sum256(e.Data)
	return digest[:]
}

// Log encodes events as firmware's crypto-agile log, with SHA-256 digests alone
// (TCG PC Client Platform Firmware Profile, section 10.2).
func Log(events []Event) []byte {
	var specID bytes.Buffer
	specID.WriteString("Spec ID Event03\x00")
	put(&specID, uint32(0))          // platform class: client
	specID.Write([]byte{0, 2, 0, 2}) // version 2.0, errata 0, 64-bit
	put(&specID, uint32(1), uint16(tpm2.TPMAlgSHA256), uint16(sha256.Size))
	specID.WriteByte(0) // no vendor info

	var log bytes.Buffer
	// The first record is in the format of TPM 1.2, and says that the others are not.
	put(&log, uint32(0), uint32(eventNoAction), [20]byte{}, uint32(specID.Len()))
	log.Write(specID.Bytes())
	for _, e := range events {
		put(&log, uint32(e.PCR), e.Type, uint32(1), uint16(tpm2.TPMAlgSHA256))
		log.Write(e.digest())
		put(&log, uint32(len(e.Data)))
		log.Write(e.Data)
	}
	return log.Bytes()
}

// GUIDs of UEFI variables (UEFI specification, sections 3.3 and 32.6).
var (
	globalVariable = []byte{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	imageSecurity  = []byte{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
)

// variable encodes UEFI_VARIABLE_DATA.
func variable(name string, data []byte) []byte {
	var b bytes.Buffer
	if name == "db" || name == "dbx" {
		b.Write(imageSecurity)
	} else {
		b.Write(globalVariable)
	}
	put(&b, uint64(len(name)), uint64(len(data)))
	b.Write(utf16le(name))
	b.Write(data)
	return b.Bytes()
}

// imageLoad encodes UEFI_IMAGE_LOAD_EVENT, with a device path of the file alone.
func imageLoad(file string, size int) []byte {
	name := utf16le(file + "\x00")
	var path bytes.Buffer
	path.Write([]byte{4, 4}) // media, file path
	put(&path, uint16(4+len(name)))
	path.Write(name)
	path.Write([]byte{0x7f, 0xff, 4, 0}) // the end
	var b bytes.Buffer
	put(&b, uint64(0), uint64(size), uint64(0), uint64(path.Len())) // where it was in memory is nobody's business
	b.Write(path.Bytes())
	return b.Bytes()
}

// signatureList encodes an EFI_SIGNATURE_LIST with one X.509 certificate.
func signatureList(signature []byte) []byte {
	var b bytes.Buffer
	b.Write([]byte{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}) // EFI_CERT_X509_GUID
	put(&b, uint32(28+len(signature)), uint32(0), uint32(len(signature)))
	b.Write(signature)
	return b.Bytes()
}

func utf16le(text string) []byte {
	var b bytes.Buffer
	put(&b, utf16.Encode([]rune(text)))
	return b.Bytes()
}

// put writes little-endian values, as all of a boot log is.
func put(b *bytes.Buffer, values ...any) {
	for _, value := range values {
		binary.Write(b, binary.LittleEndian, value) // cannot fail: fixed-size values into memory
	}
}
