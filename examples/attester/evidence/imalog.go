// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/go-attestation/attest"
	"golang.org/x/crypto/cryptobyte"
)

// An imaEntry is one file, or something else, that Linux's Integrity Measurement
// Architecture has measured (Documentation/security/IMA-templates.rst).
type imaEntry struct {
	pcr       int
	violation bool   // it could not be measured: something was writing to it
	data      []byte // template data, whose hash goes into the PCR
	said      string // for the attester's own log
}

// event is what the entry has done to the SHA-256 bank. Kernels before 5.8 have filled
// the SHA-1 digest up with zeros there.
func (e *imaEntry) event(filledUp bool) attest.Event {
	var digest [sha256.Size]byte
	switch {
	case e.violation && filledUp:
		copy(digest[:], bytes.Repeat([]byte{0xff}, sha1.Size))
	case e.violation:
		copy(digest[:], bytes.Repeat([]byte{0xff}, sha256.Size))
	case filledUp:
		sum := sha1.Sum(e.data)
		copy(digest[:], sum[:])
	default:
		digest = sha256.Sum256(e.data)
	}
	return attest.Event{Index: e.pcr, Type: eventIMA, Data: []byte(e.said), Digest: digest[:]}
}

// imaEvents are a log's events, as both kinds of kernels extend a PCR with them.
type imaEvents struct{ now, filledUp []attest.Event }

// parseIMALog reads a list of measurements as Linux gives it: binary, with the digests
// of SHA-1 or of SHA-256, or as text.
func parseIMALog(log []byte) (events imaEvents, violations int, err error) {
	if len(log) > maxEventLog {
		return events, 0, fmt.Errorf("has more than %d bytes", maxEventLog)
	}
	var entries []imaEntry
	if isText := len(log) > 0 && log[0] >= '0' && log[0] <= '9'; isText {
		entries, err = parseIMAText(log)
	} else if entries, err = parseIMABinary(log, sha1.Size); err != nil {
		if other, otherErr := parseIMABinary(log, sha256.Size); otherErr == nil {
			entries, err = other, nil
		}
	}
	if err != nil {
		return events, 0, err
	}
	for i := range entries {
		events.now = append(events.now, entries[i].event(false))
		events.filledUp = append(events.filledUp, entries[i].event(true))
		if entries[i].violation {
			violations++
		}
	}
	return events, violations, nil
}

// parseIMABinary reads binary_runtime_measurements, or the like of another bank.
// Numbers are little-endian, which ima_canonical_fmt makes them everywhere.
func parseIMABinary(log []byte, digestSize int) (entries []imaEntry, err error) {
	rest := cryptobyte.String(log)
	for !rest.Empty() {
		var pcr uint32
		var digest, name, data []byte
		entry := imaEntry{}
		if !readUint32(&rest, &pcr) || !rest.ReadBytes(&digest, digestSize) || !readSized(&rest, &name) {
			return nil, fmt.Errorf("entry %d is cut off", len(entries))
		}
		if string(name) == "ima" { // the first template, whose data have no size
			var file, path []byte
			if !rest.ReadBytes(&file, sha1.Size) || !readSized(&rest, &path) || len(path) > 256 {
				return nil, fmt.Errorf("entry %d is cut off", len(entries))
			}
			entry.data, entry.said = imaData(file, path), string(path)
		} else {
			if !readSized(&rest, &data) {
				return nil, fmt.Errorf("entry %d is cut off", len(entries))
			}
			entry.data, entry.said = data, saidOf(string(name), data)
		}
		entry.pcr, entry.violation = int(pcr), allZero(digest)
		if err := entry.check(digest); err != nil {
			return nil, fmt.Errorf("entry %d: %w", len(entries), err)
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// check compares the entry's digest with what is in the entry.
func (e *imaEntry) check(digest []byte) error {
	sum1, sum256 := sha1.Sum(e.data), sha256.Sum256(e.data)
	switch {
	case e.violation, bytes.Equal(digest, sum1[:]), bytes.Equal(digest, sum256[:]):
		return nil
	}
	return errors.New("is not what its digest says")
}

// imaData are the data of the template "ima".
func imaData(digest, path []byte) []byte {
	return append(bytes.Clone(digest), append(bytes.Clone(path), make([]byte, max(0, 256-len(path)))...)...)
}

// saidOf finds the path in template data: the second field, in all that Linux has.
func saidOf(template string, data []byte) string {
	rest := cryptobyte.String(data)
	var digest, path []byte
	if !readSized(&rest, &digest) || !readSized(&rest, &path) {
		return template
	}
	return string(bytes.TrimRight(path, "\x00"))
}

func readUint32(from *cryptobyte.String, value *uint32) bool {
	var octets []byte
	if !from.ReadBytes(&octets, 4) {
		return false
	}
	*value = binary.LittleEndian.Uint32(octets)
	return true
}

func readSized(from *cryptobyte.String, octets *[]byte) bool {
	var size uint32
	return readUint32(from, &size) && size <= maxEventLog && from.ReadBytes(octets, int(size))
}

func allZero(octets []byte) bool { return bytes.Count(octets, []byte{0}) == len(octets) }

// parseIMAText reads ascii_runtime_measurements, or the like of another bank. Linux
// writes no spaces within a field.
func parseIMAText(log []byte) (entries []imaEntry, err error) {
	for line := range strings.Lines(string(log)) {
		entry, err := parseIMALine(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", len(entries), err)
		}
		entries = append(entries, *entry)
	}
	return entries, nil
}

func parseIMALine(line string) (*imaEntry, error) {
	fields := strings.Split(line, " ")
	if len(fields) < 5 {
		return nil, errors.New("has too few fields")
	}
	pcr, err := strconv.Atoi(fields[0])
	if err != nil {
		return nil, fmt.Errorf("PCR %.20q", fields[0])
	}
	digest, err := hex.DecodeString(fields[1])
	if err != nil {
		return nil, errors.New("its digest is not in hexadecimal")
	}
	entry := &imaEntry{pcr: pcr, violation: allZero(digest), said: fields[4]}
	if entry.data, err = imaTemplate(fields[2], fields[3:]); err != nil {
		return nil, err
	}
	return entry, entry.check(digest)
}

// imaTemplate makes the template data of their fields in text.
func imaTemplate(template string, fields []string) ([]byte, error) {
	algorithm, text, _ := cutLast(fields[0], ":")
	file, err := hex.DecodeString(text)
	if err != nil {
		return nil, errors.New("the digest of its file is not in hexadecimal")
	}
	if template == "ima" {
		return imaData(file, []byte(fields[1])), nil
	}
	var data []byte
	add := func(field []byte) {
		data = append(binary.LittleEndian.AppendUint32(data, uint32(len(field))), field...)
	}
	add(append([]byte(algorithm+":\x00"), file...))
	add([]byte(fields[1] + "\x00"))
	switch template {
	case "ima-ng", "ima-ngv2":
	case "ima-sig", "ima-sigv2", "ima-buf":
		last, err := hex.DecodeString(strings.Join(fields[2:], ""))
		if err != nil {
			return nil, errors.New("its last field is not in hexadecimal")
		}
		add(last)
	default:
		return nil, fmt.Errorf("template %.40q: send the binary list", template)
	}
	return data, nil
}

func cutLast(text, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(text, separator); i >= 0 {
		return text[:i], text[i+len(separator):], true
	}
	return "", text, false
}
