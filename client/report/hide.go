// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxText    = 300 // bytes of a text
	maxFields  = 60  // of anything
	maxSecrets = 256 // that are remembered

	// maxRepeat is how many bytes in a row of a credential a text may repeat, as in
	// package transport.
	maxRepeat = 11
	minSecret = 4
)

// secrets are credentials that were seen, so that no text that repeats one is shown.
type secrets []string

func (s *secrets) add(secret string) {
	if len(secret) < minSecret || slices.Contains(*s, secret) {
		return
	}
	if len(*s) == maxSecrets {
		*s = slices.Delete(*s, 0, 1)
	}
	*s = append(*s, secret)
}

// repeated stands for a text that repeats a credential.
const repeated = "(not shown: it repeats a credential)"

// clean returns a text as it can be shown.
func (s secrets) clean(text string) string {
	text = bounded(text)
	for _, secret := range s {
		if len(secret) <= maxRepeat && strings.Contains(text, secret) {
			return repeated
		}
		for i := 0; i+maxRepeat < len(text); i++ {
			if strings.Contains(secret, text[i:i+maxRepeat+1]) {
				return repeated
			}
		}
	}
	return text
}

// bounded returns the printable characters of a text, as many as fit: also none that
// turn the direction of writing.
func bounded(text string) string {
	cut := len(text) > maxText
	if cut {
		text = text[:maxText]
	}
	text = strings.Map(func(c rune) rune {
		switch {
		case c == utf8.RuneError:
			return -1
		case c == '\n' || c == '\t':
			return ' '
		case !unicode.IsPrint(c):
			return -1
		}
		return c
	}, text)
	if cut {
		text += "…"
	}
	return text
}

// shortened returns the beginning of what identifies a device.
func shortened(id string) string {
	const start = 8
	if len(id) <= start+4 {
		return strings.Repeat("•", min(len(id), 3)) + "…"
	}
	return id[:start] + "…"
}

// identifiers are names of members and claims that identify a device: endorsement and
// attestation keys, serial numbers (RFC 9711 has ueid and sueids), addresses.
var identifiers = []string{
	"ek", "claimed_ek", "ueid", "sueids", "serial", "serial_number", "serialnumber", "sn", "imei", "meid", "imsi", "iccid", "mac", "uuid",
	"device_id", "deviceid", "hardware_id", "machine_id", "ak_name", "qualified_signer", "instance_id",
}

// isIdentifier reports whether a member of that name is shown shortened.
func isIdentifier(name string) bool {
	name = strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(name))
	return slices.Contains(identifiers, name) || strings.HasSuffix(name, "_serial") || strings.HasSuffix(name, "_serial_number")
}
