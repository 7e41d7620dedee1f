package evidence

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/google/go-attestation/attest"
)

// A boot log lists what was measured into the PCRs. It comes from the device's
// operating system, which may write into it what it likes; only the digests are
// proved by the PCRs, and an event's type is not proved at all.

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

// digestsOf returns what was measured into one PCR, in order.
func digestsOf(events []attest.Event, index int) [][]byte {
	var digests [][]byte
	for _, event := range events {
		if event.Index == index {
			digests = append(digests, event.Digest)
		}
	}
	return digests
}

// secureBoot reports whether UEFI Secure Boot was on and let only software pass
// that one of the given authorities has signed: SHA-256 digests of certificates.
// go-attestation believes of the log what the digests prove.
func secureBoot(events []attest.Event, authorities [][]byte) (bool, error) {
	state, err := attest.ParseSecurebootState(events)
	if err != nil {
		return false, err
	}
	if !state.Enabled {
		return false, errors.New("is off")
	}
	for _, used := range slices.Concat(state.PreSeparatorAuthority, state.PostSeparatorAuthority) {
		digest := sha256.Sum256(used.Raw)
		if !slices.ContainsFunc(authorities, func(known []byte) bool { return bytes.Equal(known, digest[:]) }) {
			return false, fmt.Errorf("let software pass for the unknown authority %x", digest)
		}
	}
	return true, nil
}

const eventCRTMVersion = 0x8 // EV_S_CRTM_VERSION

// firmwareVersion returns what the firmware calls itself, for the log: the text
// of the first event of PCR 0. It is "" if the text is not what was measured.
func firmwareVersion(events []attest.Event) string {
	first := slices.IndexFunc(events, func(e attest.Event) bool { return e.Index == 0 })
	if first < 0 || events[first].Type != eventCRTMVersion {
		return ""
	}
	event := events[first]
	if digest := sha256.Sum256(event.Data); !bytes.Equal(digest[:], event.Digest) || len(event.Data) > 256 {
		return ""
	}
	var text []uint16
	for data := event.Data; len(data) >= 2; data = data[2:] {
		text = append(text, binary.LittleEndian.Uint16(data))
	}
	return strings.TrimRight(string(utf16.Decode(text)), "\x00")
}
