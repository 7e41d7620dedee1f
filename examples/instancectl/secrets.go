// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"regexp"
	"strings"
	"unicode"

	"github.com/instancekey/instancekey/transport"
)

// hiddenCode stands for a server's error code that is not printed.
const hiddenCode = "unprintable_error_code"

var (
	// code is what RFC 6749, section 5.2, has for "error", as far as it is one
	// word or a few.
	code = regexp.MustCompile(`^[\x20-\x21\x23-\x5B\x5D-\x7E]{1,64}$`)

	// partOfJWT is what the parts of a JWT begin with that are JSON objects.
	partOfJWT = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{5}`)

	// secretLike is what nobody writes for people: a part of a JWT, or what is
	// too long for a word or a UUID.
	secretLike = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{5}|[A-Za-z0-9_~+-]{40}`)
)

// isCode reports whether a server's error code may be printed.
func isCode(text string) bool { return code.MatchString(text) && !secretLike.MatchString(text) }

// isDescription reports whether a server's text may be printed.
func isDescription(text string) bool {
	return text != "" && printable(text) == text && !secretLike.MatchString(text)
}

// printable puts a space for what a terminal or a log would not show as it is.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}

// keepSecret remembers what is sent, to know it again.
func (s *sends) keepSecret(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if secret != "" {
		s.secrets = append(s.secrets, secret)
	}
}

func (s *sends) keepSecrets(h http.Header) {
	for _, name := range []string{transport.HeaderAttestation, transport.HeaderAttestationPoP, transport.HeaderDPoP, "Authorization"} {
		value := h.Get(name)
		s.keepSecret(value[strings.LastIndexByte(value, ' ')+1:]) // without the scheme
	}
}

// goodPart is how many characters of a secret give it away.
const goodPart = 16

// conceal returns the text, or what is to be shown instead if a secret that was
// sent, or a good part of one, is in it: a server may repeat what it was sent.
func (s *sends) conceal(text, instead string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range s.secrets {
		size := min(goodPart, len(secret))
		for i := range len(secret) - size + 1 {
			if strings.Contains(text, secret[i:i+size]) {
				return instead
			}
		}
	}
	return text
}
