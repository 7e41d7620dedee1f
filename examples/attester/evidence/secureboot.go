// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/google/go-attestation/attest"
)

// Types of events (TCG PC Client Platform Firmware Profile, section 10.4.1). The
// operating system may have written any into the log.
const (
	eventNoAction          = 0x00000003
	eventSeparator         = 0x00000004
	eventAction            = 0x00000005
	eventCRTMVersion       = 0x00000008
	eventVariable          = 0x80000001 // EV_EFI_VARIABLE_DRIVER_CONFIG
	eventEFIAction         = 0x80000007
	eventVariableAuthority = 0x800000e0
)

// secureBootReader reads what PCR 7 says of UEFI Secure Boot (PC Client Platform
// Firmware Profile, section 3.3.4.8). Nothing else says anything of it.
//
// A device's operating system writes the log: it can call an event whatever it
// likes, and it can measure more events after the firmware's, those of a good boot,
// say. So an event is what its data is, which the digest proves, and its type has to
// agree. What is not proved might be the true beginning of another boot, and ends it.
// What is proved, and is nothing that counts, is passed over.
type secureBootReader struct {
	authorities [][]byte // SHA-256 digests of the certificates that software may pass for

	variables map[string]bool // those that have been measured, of the ones that count
	enabled   bool
	separated bool // the firmware's configuration is complete
	passed    bool // something was let pass by an authority that is known
	notes     notes
}

// secureBoot reports whether UEFI Secure Boot was on and let only software pass that
// one of the given authorities has signed: nil if so, and otherwise why it is not
// proved. notes say what else was found, for the log.
func secureBoot(events []attest.Event, authorities [][]byte) (notes []string, err error) {
	r := secureBootReader{authorities: authorities, variables: make(map[string]bool)}
	n := 0
	for _, event := range events {
		if event.Index != 7 {
			continue
		}
		n++
		if err := r.read(event, n); err != nil {
			return r.notes.list(), fmt.Errorf("event %d of PCR 7 (%v) %w", n, event.Type, err)
		}
		if r.separated && r.variables["SecureBoot"] && !r.enabled {
			break // whatever comes now
		}
	}
	return r.notes.list(), r.conclude()
}

func (r *secureBootReader) conclude() error {
	switch {
	case !r.variables["SecureBoot"]:
		return errors.New("is not mentioned in PCR 7")
	case !r.enabled:
		return errors.New("is off")
	case !r.separated:
		return errors.New("PCR 7 has no separator: the firmware has not finished")
	}
	for _, name := range []string{"PK", "KEK", "db"} {
		if !r.variables[name] {
			return fmt.Errorf("is on, and there are no keys in %s", name)
		}
	}
	if !r.passed {
		return errors.New("is on, and has verified nothing that was started")
	}
	return nil
}

// read takes one event.
func (r *secureBootReader) read(event attest.Event, n int) error {
	// Data without its last byte: versions of shim of before 2018 measure that.
	proved := event.Data
	if digest := sha256.Sum256(proved); !bytes.Equal(digest[:], event.Digest) {
		if proved = proved[:max(0, len(proved)-1)]; event.Type != eventVariableAuthority {
			return errors.New("is not what was measured: its data does not have its digest")
		} else if digest := sha256.Sum256(proved); !bytes.Equal(digest[:], event.Digest) {
			return errors.New("is not what was measured: its data does not have its digest")
		}
	}
	text := strings.TrimRight(string(proved), "\x00")
	variable, isVariable := parseVariable(proved)
	switch {
	case len(proved) == 4 && event.Type == eventSeparator:
		return r.separate(proved)
	case len(proved) == 4 && isSeparator(proved):
		return errors.New("is a separator by its data, and not by its type")
	case !isVariable && strings.Contains(strings.ToLower(text), "debug mode"):
		return errors.New("says that a debugger was there")
	case text == "DMA Protection Disabled":
		r.notes.add("event %d of PCR 7 says that protection against DMA was disabled", n)
		return nil
	case isVariable && event.Type != eventVariable && event.Type != eventVariableAuthority:
		return fmt.Errorf("is the variable %.40q by its data, and not by its type", variable.name)
	case isVariable:
		return r.readVariable(variable, event, n)
	case event.Type == eventEFIAction || event.Type == eventAction:
		return fmt.Errorf("says something that is not understood: %.60q", text)
	case event.Type == eventSeparator || event.Type == eventVariable || event.Type == eventVariableAuthority:
		return fmt.Errorf("cannot be read: its %d bytes are not of its type", len(proved))
	}
	r.notes.add("event %d of PCR 7 (%v) was passed over: it says nothing of Secure Boot", n, event.Type)
	return nil
}

// isSeparator reports whether four bytes are what the firmware ends its
// configuration with: one of two values, or that it failed.
func isSeparator(data []byte) bool {
	value := binary.LittleEndian.Uint32(data)
	return value == 0 || value == 1 || value == 0xffffffff
}

func (r *secureBootReader) separate(data []byte) error {
	value := binary.LittleEndian.Uint32(data)
	switch {
	case value != 0 && value != 0xffffffff:
		return fmt.Errorf("is a separator that says that the firmware failed: 0x%08x", value)
	case r.separated:
		return errors.New("is a second separator: software after the firmware has measured it")
	}
	r.separated = true
	return nil
}

// An efiVariable is UEFI_VARIABLE_DATA.
type efiVariable struct {
	name string
	data []byte
}

// parseVariable reads UEFI_VARIABLE_DATA, and whatever else looks like it: some
// firmware counts the NUL at the end of the name, or has more or fewer bytes than
// it says.
func parseVariable(data []byte) (v efiVariable, ok bool) {
	const header = 16 + 8 + 8 // GUID, length of the name in characters, length of the data
	const longest = 512       // name
	if len(data) < header {
		return v, false
	}
	count, size, rest := binary.LittleEndian.Uint64(data[16:]), binary.LittleEndian.Uint64(data[24:]), data[header:]
	if count == 0 || count > longest || 2*count > uint64(len(rest)) {
		return v, false
	}
	var characters []uint16
	for ; count > 0; count, rest = count-1, rest[2:] {
		characters = append(characters, binary.LittleEndian.Uint16(rest))
	}
	v.name = strings.TrimRight(string(utf16.Decode(characters)), "\x00")
	v.data = rest[:min(size, uint64(len(rest)))]
	return v, isPrintable(v.name)
}

// isPrintable reports whether a text is one: not empty, and without what no text
// has.
func isPrintable(text string) bool {
	strange := func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }
	return text != "" && !strings.ContainsFunc(text, strange)
}

// readVariable takes a variable that was measured, by its name: as configuration
// before the separator, or because it has let something pass.
func (r *secureBootReader) readVariable(v efiVariable, event attest.Event, n int) error {
	switch v.name {
	case "SbatLevel": // which versions of boot loaders shim refuses
		return nil
	case "MokListTrusted": // the kernel trusts the owner's keys for modules
		r.notes.add("event %d of PCR 7: the kernel trusts what the device's owner has enrolled (MokListTrusted)", n)
		return nil
	case "MokSBState":
		if !bytes.Equal(v.data, []byte{0}) {
			return errors.New("says that shim was told to verify nothing (MokSBState)")
		}
		return nil
	}
	configuration := slices.Contains([]string{"SecureBoot", "PK", "KEK", "db", "dbx"}, v.name)
	signed := signatureOf(v.data)
	if r.separated || event.Type == eventVariableAuthority || signed != nil {
		return r.authorize(v, signed)
	}
	if !configuration {
		r.notes.add("event %d of PCR 7 was passed over: the variable %.40q says nothing of Secure Boot", n, v.name)
		return nil
	}
	if r.variables[v.name] {
		return fmt.Errorf("is the variable %s a second time", v.name)
	}
	switch {
	case v.name == "SecureBoot":
		if len(v.data) > 1 || len(v.data) == 1 && v.data[0] > 1 {
			return fmt.Errorf("has for SecureBoot the value %.20x, which is neither on nor off", v.data)
		}
		r.enabled = len(v.data) == 1 && v.data[0] == 1 // a variable that is not there is empty
		r.variables[v.name] = true
	default: // what is in the lists does not matter: who was let pass comes later
		const emptyList = 28 // the header of EFI_SIGNATURE_LIST
		r.variables[v.name] = len(v.data) > emptyList
	}
	return nil
}

// derSequence returns the DER SEQUENCE that octets begin with; nil if they don't.
func derSequence(octets []byte) []byte {
	var found asn1.RawValue
	if _, err := asn1.Unmarshal(octets, &found); err != nil || found.Class != asn1.ClassUniversal || found.Tag != asn1.TagSequence {
		return nil
	}
	return found.FullBytes
}

// signatureOf returns the certificate in EFI_SIGNATURE_DATA, after the GUID of its
// owner, which versions of shim of before 2018 leave out; nil if there is none. The
// certificate is not parsed: which it is counts, and not what it says.
func signatureOf(data []byte) []byte {
	if len(data) > 16 && len(derSequence(data[16:])) == len(data)-16 {
		return data[16:]
	}
	if len(data) > 0 && len(derSequence(data)) == len(data) {
		return data
	}
	return nil
}

// authorize takes what has let something pass.
func (r *secureBootReader) authorize(v efiVariable, certificate []byte) error {
	const hashed = 16 + sha256.Size // owner and digest of an image
	switch {
	case certificate == nil && len(v.data) == hashed:
		return fmt.Errorf("let software pass by its own digest %x in %.40q, and not for an authority", v.data[16:], v.name)
	case certificate == nil:
		return fmt.Errorf("let software pass for something in %.40q that is no certificate", v.name)
	}
	digest := sha256.Sum256(certificate)
	if !slices.ContainsFunc(r.authorities, func(known []byte) bool { return bytes.Equal(known, digest[:]) }) {
		return fmt.Errorf("let software pass for the unknown authority %x", digest)
	}
	r.passed = true
	return nil
}

// notes are for the log: a limited number of them.
type notes struct {
	texts []string
	more  int
}

const maxNotes = 10

func (n *notes) add(format string, args ...any) {
	if len(n.texts) == maxNotes {
		n.more++
		return
	}
	n.texts = append(n.texts, fmt.Sprintf(format, args...))
}

func (n *notes) list() []string {
	if n.more == 0 {
		return n.texts
	}
	return append(slices.Clone(n.texts), fmt.Sprintf("and %d more", n.more))
}
