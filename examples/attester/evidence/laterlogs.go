// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-attestation/attest"
)

// What is measured when the firmware has gone is in logs of the operating system's.
// They go on while a quote is made: they begin with what it covers, and what comes
// after that is not looked at.

// firmwarePCRs are 0 to 7: nothing but the firmware's own log explains those.
const firmwarePCRs = 8

// laterLogs are a device's logs of what the operating system has measured.
type laterLogs struct {
	userspace  []attest.Event
	ima        imaEvents
	violations int // in ima
	firmware   []attest.Event
}

// laterLogs reads those that the operator demands, and nil if there are none. The
// others are not read.
func (r *Reference) laterLogs(p *platform) (*laterLogs, error) {
	if !r.userspaceLog && !r.imaLog {
		return nil, nil
	}
	var logs laterLogs
	var err error
	if r.userspaceLog {
		if len(p.UserspaceLog) == 0 {
			return nil, refuse(CodePlatformEvidenceRequired, "no canonicalEventLog, and the reference values need it")
		}
		if logs.userspace, err = parseUserspaceLog(p.UserspaceLog); err != nil {
			return nil, refuse(CodeInvalidEvidence, "canonicalEventLog: %v", err)
		}
	}
	if r.imaLog {
		if len(p.IMALog) == 0 {
			return nil, refuse(CodePlatformEvidenceRequired, "no imaLog, and the reference values need it")
		}
		if logs.ima, logs.violations, err = parseIMALog(p.IMALog); err != nil {
			return nil, refuse(CodeInvalidEvidence, "imaLog: %v", err)
		}
	}
	if len(p.EventLog) > 0 {
		if logs.firmware, err = firmwareEvents(p.EventLog); err != nil {
			return nil, refuse(CodeInvalidEvidence, "event log: %v", err)
		}
	}
	return &logs, nil
}

// explains returns the PCRs of these that the logs have to add up to: those that systemd
// and IMA extend, if their log is demanded, and whatever else they have events of.
func (l *laterLogs) explains(r *Reference, pcrs map[int][]byte) (explained []int) {
	for _, index := range slices.Sorted(maps.Keys(pcrs)) {
		there := func(e attest.Event) bool { return e.Index == index }
		demanded := r.userspaceLog && slices.Contains(userspacePCRs, index) || r.imaLog && index == imaPCR
		if index >= firmwarePCRs && (demanded || slices.ContainsFunc(l.userspace, there) || slices.ContainsFunc(l.ima.now, there)) {
			explained = append(explained, index)
		}
	}
	return explained
}

// What Linux and systemd extend (systemd: "TPM2 PCR Measurements Made by systemd").
var userspacePCRs = []int{9, 11, 12, 13, 15}

const imaPCR = 10

// replay returns the events that a PCR's value was made of: the firmware's, and then as
// many of the later ones as it takes.
func (l *laterLogs) replay(index int, value []byte) ([]attest.Event, error) {
	of := func(events []attest.Event) (chosen []attest.Event) {
		for _, e := range events {
			if e.Index == index {
				chosen = append(chosen, e)
			}
		}
		return chosen
	}
	first := of(l.firmware)
	for _, ima := range [][]attest.Event{l.ima.now, l.ima.filledUp} {
		// Who extends the same PCR at the same time is not known; no system has both.
		events := slices.Concat(first, of(l.userspace), of(ima))
		if n := prefix(events, value); n >= len(first) {
			return events[:n], nil
		}
	}
	n := len(of(l.userspace)) + len(of(l.ima.now))
	return nil, fmt.Errorf("do not add up to what was quoted of PCR %d, with however many of its %d events: something has extended it that is not in them", index, len(first)+n)
}

// prefix returns how many of the events make a PCR's value, -1 if no number does.
func prefix(events []attest.Event, value []byte) int {
	current := make([]byte, sha256.Size)
	for n := 0; ; n++ {
		if bytes.Equal(current, value) {
			return n
		}
		if n == len(events) {
			return -1
		}
		sum := sha256.Sum256(append(current, events[n].Digest...))
		current = sum[:]
	}
}

// replayAll verifies what the later logs explain, and returns their events, PCR by
// PCR, and what was found, for the attester's log.
func (l *laterLogs) replayAll(explained []int, pcrs map[int][]byte) (events []attest.Event, found string, err error) {
	var counts []string
	for _, index := range explained {
		of, err := l.replay(index, pcrs[index])
		if err != nil {
			return nil, "", refuse(CodeInvalidEvidence, "logs: %v", err)
		}
		events = append(events, of...)
		counts = append(counts, fmt.Sprintf("PCR %d: %d events", index, len(of)))
	}
	if l.violations > 0 {
		counts = append(counts, fmt.Sprintf("IMA could not measure %d files that were being written", l.violations))
	}
	return events, strings.Join(counts, "; "), nil
}

// firmwareEvents are the events of a firmware's log that extend PCRs. Nothing has
// verified them.
func firmwareEvents(log []byte) ([]attest.Event, error) {
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
	events := parsed.Events(attest.HashSHA256)
	return slices.DeleteFunc(events, func(e attest.Event) bool { return e.Type == eventNoAction }), nil
}
