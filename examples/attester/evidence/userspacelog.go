// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4/json"
	"github.com/google/go-attestation/attest"
)

// Types of the events that are in none of the firmware's logs. Their Data is text for
// the attester's own log, which nothing proves.
const (
	eventUserspace attest.EventType = 0xffff_0001
	eventIMA       attest.EventType = 0xffff_0002
)

// parseUserspaceLog reads what an operating system's programs have measured: a JSON
// text sequence (RFC 7464) of events in the form of the TCG Canonical Event Log, as
// systemd writes it.
func parseUserspaceLog(log []byte) (events []attest.Event, err error) {
	if len(log) > maxEventLog {
		return nil, fmt.Errorf("has more than %d bytes", maxEventLog)
	}
	texts := bytes.Split(log, []byte{0x1e})
	if len(bytes.TrimSpace(texts[0])) > 0 || len(texts) < 2 {
		return nil, errors.New("is no JSON text sequence")
	}
	for i, text := range texts[1:] {
		event, err := parseUserspaceEvent(text)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		if event != nil {
			events = append(events, *event)
		}
	}
	return events, nil
}

// parseUserspaceEvent returns nil for what went into no PCR.
func parseUserspaceEvent(text []byte) (*attest.Event, error) {
	var record struct {
		PCR     *int `json:"pcr"` // systemd has records of NV indexes, too
		Digests []struct {
			Algorithm string `json:"hashAlg"`
			Digest    string `json:"digest"`
		} `json:"digests"`
		ContentType string          `json:"content_type"`
		Content     json.RawMessage `json:"content"`
	}
	if err := json.Unmarshal(text, &record); err != nil {
		return nil, err
	}
	if record.PCR == nil {
		return nil, nil
	}
	var digest []byte
	for _, d := range record.Digests {
		if d.Algorithm != "sha256" {
			continue
		}
		decoded, err := hex.DecodeString(d.Digest)
		if err != nil || len(decoded) != sha256.Size || digest != nil {
			return nil, errors.New("not one SHA-256 digest, in hexadecimal")
		}
		digest = decoded
	}
	if digest == nil {
		return nil, errors.New("has no SHA-256 digest")
	}
	said := fmt.Sprintf("%.40s %.200s", record.ContentType, record.Content)
	var content struct {
		Event string `json:"eventType"`
		Text  string `json:"string"`
	}
	if record.ContentType == "systemd" && json.Unmarshal(record.Content, &content) == nil {
		said = fmt.Sprintf("systemd %.40s %.160s", content.Event, content.Text)
	}
	return &attest.Event{Index: *record.PCR, Type: eventUserspace, Data: []byte(said), Digest: digest}, nil
}
