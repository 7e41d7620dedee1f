// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// words are what programs get to read of an error, searched from the top: the
// first lines say what to do, the last ones only where it happened.
var words = []struct {
	match func(error) bool
	word  string
}{
	{is(keystore.ErrNotFound), "not_found"},
	{is(keystore.ErrExists), "exists"},
	{is(keystore.ErrKeyLost), "key_lost"},
	{is(keystore.ErrCorrupt), "corrupt"},
	{is(keystore.ErrLockedOut), "locked_out"},
	{is(keystore.ErrAuth), "auth"},
	{is(keystore.ErrPolicy), "policy"},
	{is(keystore.ErrUnavailable), "unavailable"},
	{is(keystore.ErrClosed), "closed"},
	{is(client.ErrClosed), "closed"},
	{isUnknownCA, "unknown_ca"},
	{isCertificate, "certificate"},
	{is(client.ErrAttestationRefused), "attestation_refused"},
	{is(client.ErrAttesterUnavailable), "attester_unavailable"},
	{is(client.ErrInvalidAttestation), "invalid_attestation"},
	{is(client.ErrOtherKey), "other_key"},
	{is(client.ErrTokenType), "token_type"},
	{is(client.ErrClock), "clock"},
	{is(transport.ErrHeaderTooLarge), "header_too_large"},
	{is(transport.ErrRedirect), "redirect"},
	{isTimeout, "timeout"},
	{is(context.Canceled), "canceled"},
	{isNetwork, "unreachable"},
	{is(client.ErrMetadata), "metadata"},
}

// aboutErrors explains "error" in the help of token.
func aboutErrors() string {
	text := `The error of a token is the server's own code, such as invalid_client (RFC 6749, section 5.2), or
` + hiddenCode + ` for one that cannot be shown, or http_503 for an answer without one, or
resource_401 for an answer of -resource, or what happened here:`
	var here []string
	for _, w := range words {
		here = append(here, w.word)
	}
	for some := range slices.Chunk(append(slices.Compact(here), "failed"), 8) {
		text += "\n  " + strings.Join(some, ", ") + ","
	}
	return strings.TrimSuffix(text, ",")
}

func is(sentinel error) func(error) bool {
	return func(err error) bool { return errors.Is(err, sentinel) }
}

// isTimeout looks further than the first net.Error: an http.Client's asks only
// the error in it, which may be one that does not know.
func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var timeout net.Error
	for errors.As(err, &timeout) {
		if timeout.Timeout() {
			return true
		}
		err = errors.Unwrap(timeout)
	}
	return false
}

// isNetwork does not ask for net.Error: what an http.Client returns is always one.
func isNetwork(err error) bool {
	return errors.As(err, new(*net.OpError)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// An interrupted error is what a library has made of it that an answer could
// not be read to its end, and what ended the reading: x/oauth2 keeps the text.
type interrupted struct {
	error
	by error
}

func (e interrupted) Unwrap() []error { return []error{e.error, e.by} }

// word returns the error code of an OAuth server, or the word for what has
// happened here, or "failed".
func word(err error) string {
	var refusal *oauth2.RetrieveError
	if errors.As(err, &refusal) {
		return refusalWord(refusal)
	}
	var status *resourceError
	if errors.As(err, &status) {
		return fmt.Sprintf("resource_%d", status.code)
	}
	for _, w := range words {
		if w.match(err) {
			return w.word
		}
	}
	return "failed"
}

func refusalWord(refusal *oauth2.RetrieveError) string {
	switch {
	case refusal.ErrorCode == "":
		return fmt.Sprintf("http_%d", refusal.Response.StatusCode)
	case isCode(refusal.ErrorCode):
		return refusal.ErrorCode
	default:
		return hiddenCode
	}
}

// describe returns an error's text for people, without what a server may have
// put into it for somebody else: a proxy's page, a JWT, a terminal's controls.
func describe(err error) string {
	text := inTerms(err.Error())
	if advice := networkAdvice(err); advice != "" {
		text += ": " + advice
	}
	var refusal *oauth2.RetrieveError
	var attester *client.AttesterError
	switch {
	case errors.As(err, &refusal):
		status := refusal.Response.StatusCode // the words beside it are the server's own
		text = fmt.Sprintf("server answered %d %s (%s)", status, http.StatusText(status), refusalWord(refusal))
		if isDescription(refusal.ErrorDescription) {
			text += fmt.Sprintf(": %.200s", refusal.ErrorDescription)
		}
		if advice := client.Advice(err); advice != "" {
			text += ": " + inTerms(advice)
		}
	case errors.As(err, &attester) && secretLike.MatchString(attester.Code+" "+attester.Description), partOfJWT.MatchString(text):
		text = word(err)
	}
	return printable(text)
}
