// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/google/go-attestation/attest"
)

// A boot log lists what was measured into the PCRs. It comes from the device's
// operating system, which may write into it what it likes; only the digests are
// proved by the PCRs, and an event's type is not proved at all.

// replay verifies what logs say of the boot.
func (r *Reference) replay(p *platform, booted *boot, result *Result) error {
	later, err := r.laterLogs(p)
	if err != nil {
		return err
	}
	logged := r.logged(booted.pcrs)
	if later != nil {
		explained := later.explains(r, booted.pcrs)
		for _, index := range explained {
			delete(logged, index)
		}
		var found string
		if booted.events, found, err = later.replayAll(explained, booted.pcrs); err != nil {
			return err
		}
		result.Details = append(result.Details, slog.String("later_logs", found))
	}
	if len(p.EventLog) == 0 {
		return nil
	}
	booted.hasLog = true
	events, err := replay(p.EventLog, logged)
	if err != nil {
		return refuse(CodeInvalidEvidence, "event log: %v", err)
	}
	booted.events = append(booted.events, events...)
	result.Details = append(result.Details, slog.String("firmware_version", firmwareVersion(events)))
	return nil
}

// replay verifies that the events of a log add up to the quoted PCRs, and
// returns these events in their order.
func replay(log []byte, pcrs map[int][]byte) ([]attest.Event, error) {
	if len(log) > maxEventLog {
		return nil, fmt.Errorf("has more than %d bytes", maxEventLog)
	}
	parsed, err := attest.ParseEventLog(log)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(parsed.Algs, attest.HashSHA256) {
		return nil, errors.New("has no SHA-256 digests")
	}
	var values []attest.PCR
	for index, value := range pcrs {
		values = append(values, attest.PCR{Index: index, Digest: value, DigestAlg: crypto.SHA256})
	}
	events, err := parsed.Verify(values)
	var replayed attest.ReplayError
	if errors.As(err, &replayed) {
		return nil, fmt.Errorf("does not add up to what was quoted of the PCRs %v: something has extended them that is not in the log", replayed.InvalidPCRs)
	}
	if err != nil {
		return nil, err
	}
	// A PCR of which the log says nothing at all passes Verify, whatever its value.
	for index, value := range pcrs {
		unused := bytes.Count(value, []byte{0}) == len(value)
		if !unused && !slices.ContainsFunc(events, func(e attest.Event) bool { return e.Index == index }) {
			return nil, fmt.Errorf("does not say what was measured into PCR %d", index)
		}
	}
	return events, nil
}

// firmwareVersion returns what the firmware calls itself, for the log: the text of
// the first event of PCR 0, or its GUID. It is "" if that is neither, or not what was
// measured.
func firmwareVersion(events []attest.Event) string {
	first := slices.IndexFunc(events, func(e attest.Event) bool { return e.Index == 0 })
	if first < 0 || events[first].Type != eventCRTMVersion {
		return ""
	}
	event := events[first]
	if digest := sha256.Sum256(event.Data); !bytes.Equal(digest[:], event.Digest) || len(event.Data) > 256 {
		return ""
	}
	if len(event.Data) == 16 {
		if text := decodeUTF16(event.Data); !isPrintable(text) {
			return formatGUID(event.Data)
		}
	}
	for _, text := range []string{decodeUTF16(event.Data), strings.TrimRight(string(event.Data), "\x00")} {
		if isPrintable(text) {
			return text
		}
	}
	return ""
}

func decodeUTF16(data []byte) string {
	var text []uint16
	for ; len(data) >= 2; data = data[2:] {
		text = append(text, binary.LittleEndian.Uint16(data))
	}
	return strings.TrimRight(string(utf16.Decode(text)), "\x00")
}

// formatGUID writes an EFI_GUID, of which the first three parts are little-endian.
func formatGUID(data []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x",
		binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint16(data[4:]), binary.LittleEndian.Uint16(data[6:]), data[8:10], data[10:16])
}
