// SPDX-License-Identifier: Apache-2.0

// Package authchallenge reads WWW-Authenticate header fields (RFC 9110, section
// 11.6.1).
package authchallenge

import (
	"net/http"
	"strings"
)

// A Challenge is one challenge of a server: "Bearer", "DPoP" and so on.
type Challenge struct {
	Scheme string            // as the server wrote it
	Params map[string]string // by name in lower case; of a name that comes twice the first counts
}

// Parse returns all challenges in all WWW-Authenticate fields: there may be
// several in one field, and, like their parameters, they have commas between
// them. What does not follow the grammar is passed over.
func Parse(h http.Header) []Challenge {
	var challenges []Challenge
	for _, field := range h.Values("WWW-Authenticate") {
		challenges = append(challenges, parseChallenges(field)...)
	}
	return challenges
}

func parseChallenges(field string) []Challenge {
	var challenges []Challenge
	rest := strings.TrimLeft(field, " \t,")
	for rest != "" {
		name := rest[:tokenLength(rest)]
		if name == "" {
			// Not a token, where one must be: on with what follows the next comma.
			_, rest, _ = strings.Cut(rest, ",")
			rest = strings.TrimLeft(rest, " \t,")
			continue
		}
		rest = strings.TrimLeft(rest[len(name):], " \t")
		value, isParam := strings.CutPrefix(rest, "=")
		if !isParam {
			challenges = append(challenges, Challenge{name, make(map[string]string)})
			rest = strings.TrimLeft(rest, " \t,")
			continue
		}
		var text string
		text, rest = parseValue(strings.TrimLeft(value, " \t"))
		rest = strings.TrimLeft(rest, " \t,=") // = ends a token68 such as YWI==
		if len(challenges) > 0 {
			params, name := challenges[len(challenges)-1].Params, strings.ToLower(name)
			if _, twice := params[name]; !twice {
				params[name] = text
			}
		}
	}
	return challenges
}

// parseValue reads a token or a quoted string from the beginning of s.
func parseValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		n := tokenLength(s)
		return s[:n], s[n:]
	}
	var unquoted strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return unquoted.String(), s[i+1:]
		case '\\':
			if i++; i == len(s) {
				return "", ""
			}
		}
		unquoted.WriteByte(s[i])
	}
	return "", "" // no closing quote: nothing in it can be relied on
}

// tokenLength returns the length of the token (RFC 9110, section 5.6.2), or of
// the token68, that s begins with.
func tokenLength(s string) int {
	for i := range len(s) {
		c := s[i]
		isAlphanumeric := '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		if !isAlphanumeric && !strings.ContainsRune("!#$%&'*+-.^_`|~/", rune(c)) {
			return i
		}
	}
	return len(s)
}
