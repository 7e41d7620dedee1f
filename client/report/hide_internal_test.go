// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"
	"testing"
)

// TestClean: a text repeats nothing of a credential, and is short and printable.
func TestClean(t *testing.T) {
	const long = "abcdefghijklmnopqrstuvwxyz"
	var s secrets
	for _, secret := range []string{long, "pin7", "abc"} { // the last is too short to be told from a word
		s.add(secret)
	}
	for text, want := range map[string]string{
		"":                              "",
		"plain":                         "plain",
		"of the abc":                    "of the abc",
		"the pin7 was wrong":            repeated,
		"got " + long:                   repeated,
		"ends in " + long[:12]:          repeated,
		long[14:] + " begins it":        repeated,
		"part " + long[5:17] + " of it": repeated,
		"only " + long[5:16]:            "only " + long[5:16],
		"a\x00b\x1b[31mc\u202ed":        "ab[31mcd",
		"two\nlines\tand a tab":         "two lines and a tab",
		"not \xff UTF-8":                "not  UTF-8",
		strings.Repeat("x", maxText):    strings.Repeat("x", maxText),
		strings.Repeat("x", maxText+1):  strings.Repeat("x", maxText) + "…",
	} {
		if got := s.clean(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// TestSecretsAreFew: the oldest goes.
func TestSecretsAreFew(t *testing.T) {
	var s secrets
	for i := range maxSecrets + 1 {
		s.add(fmt.Sprintf("secret %03d", i))
		s.add(fmt.Sprintf("secret %03d", i)) // known
	}
	if len(s) != maxSecrets || s.clean("secret 000") != "secret 000" || s.clean("secret 001") != repeated || s.clean("secret 256") != repeated {
		t.Errorf("%d are remembered, from %q to %q", len(s), s[0], s[len(s)-1])
	}
}

func TestIdentifiers(t *testing.T) {
	for name, want := range map[string]bool{
		"ueid": true, "Serial-Number": true, "device id": true, "board_serial": true, "chassis_serial_number": true, "IMEI": true,
		"serials": false, "model": false, "version": false, "": false,
	} {
		if got := isIdentifier(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
	for id, want := range map[string]string{"": "…", "ab": "••…", "abcdefghijkl": "•••…", "abcdefghijklm": "abcdefgh…"} {
		if got := shortened(id); got != want {
			t.Errorf("%q became %q, want %q", id, got, want)
		}
	}
}

// TestFactsShowNoPassword of an attester's URL, and none twice.
func TestFactsShowNoPassword(t *testing.T) {
	r := new(Recorder)
	r.Fact("attester", "https://device:secret@attester.example.com/")
	r.Fact("attester", "https://device:secret@attester.example.com/")
	r.Fact("issuer", "https://as.example.com")
	r.Fact("empty", "")
	if got, want := fmt.Sprint(r.facts), "[{attester https://device:xxxxx@attester.example.com/ 0} {issuer https://as.example.com 0}]"; got != want {
		t.Errorf("facts %s, want %s", got, want)
	}
}
