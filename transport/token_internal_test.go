// SPDX-License-Identifier: Apache-2.0

package transport

import "testing"

// TestC3AttestationIsAToken: what may stand in the header field of -12, a Structured
// Field, and of -11, token68.
func TestC3AttestationIsAToken(t *testing.T) {
	for value, want := range map[string]bool{
		"eyJ0.e30.c2ln": true, "a": true, "a~+/._-9": true,
		"":       false,
		"9a":     false, // no Token begins with a digit
		".a":     false,
		"-a":     false,
		"a=":     false, // token68, and no Token
		"a;b=1":  false, // a parameter
		"a, b":   false,
		`"a"`:    false, // a String
		"*a":     false, // a Token, and no token68
		"a\r\nb": false,
		"a b":    false,
		"é":      false,
	} {
		if got := isToken(value); got != want {
			t.Errorf("isToken(%q) is %t", value, got)
		}
	}
}
