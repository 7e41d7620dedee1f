// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
)

// terms are what errors of the SDK call things, and what these are called on the command
// line: somebody who types commands has never seen a Config.
var terms = strings.NewReplacer(
	"check Config.Device", "correct -store",
	"leave Config.Device empty", "use -store tbs",
	"or Config.Dial", "or a socket",
	"the key has a PIN, and Config.PIN is not set", "the key has a PIN: use -pin-file FILE",
	"set Config.OwnerAuth to the password of", "name a file with -owner-auth-file that holds the password of",
	"set Config.EndorsementAuth to the password of", "name a file with -endorsement-auth-file that holds the password of",
	", or Config.Exclusive if there are no other programs", "",
	", or until Config.Exclusive flushes them", "",
	"Config.EKCertificates", "-ek-certificates",
	"see Config.Issuer and Config.ClientID", "see -issuer and -client-id",
	"set Config.DPoP", "use -dpop",
	"set DPoPInstanceKey", "use -method dpop",
	"Config.ClientID", "-client-id",
	"Config.Issuer", "-issuer",
	"Config.Resources", "-resource",
	"leave Config.Deviations empty", "use another attester",
	"Config.Device", "-store",
	"Config.Dir", "-keys",
	"Config.Dial", "the connection",
	"transport.ProfileKeycloak", "-profile keycloak",
	"and not by Persist", "and not by instancectl key persist",
)

// ofPackage is the SDK's package that an error is from.
var ofPackage = regexp.MustCompile(`(?m)(^|: )(?:(?:client|keystore|softkey|tpm|transport): )+`)

// inTerms returns an error's text in the terms of the command line, on one line, and
// says nothing twice.
func inTerms(text string) string {
	text = ofPackage.ReplaceAllString(terms.Replace(text), "$1")
	var said, lines []string
	for line := range strings.Lines(text) {
		var parts []string
		for part := range strings.SplitSeq(strings.TrimSpace(line), ": ") {
			if !slices.Contains(said, part) {
				said = append(said, part)
				parts = append(parts, part)
			}
		}
		if len(parts) > 0 {
			lines = append(lines, strings.Join(parts, ": "))
		}
	}
	return strings.Join(lines, "; ")
}

// newLog returns a log whose errors are in the terms of the command line.
func newLog(to io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch err, isError := a.Value.Any().(error); {
		case isError:
			return slog.String(a.Key, describe(err))
		case a.Value.Kind() == slog.KindString && a.Key != slog.TimeKey:
			return slog.String(a.Key, inTerms(a.Value.String()))
		}
		return a
	}}))
}
