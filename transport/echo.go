// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	maxCode        = 100 // bytes kept of an error code
	maxDescription = 200 // bytes kept of an error description

	// maxEcho is how many bytes in a row of a credential a server's text may repeat,
	// and minEcho how long a shorter credential must be to be looked for at all.
	maxEcho = 11
	minEcho = 4
)

// sent is what one send of a request had in its header, and what those before had.
type sent struct {
	header http.Header
	before *sent
}

// fit returns r with texts that are fit to be logged: short, printable, and without
// anything secret of the headers that were sent. Servers like to quote what they refuse.
// An unusual code is also held against the body; a description is only when somebody
// asks for it.
func (r refusal) fit(sent *sent, req *http.Request) refusal {
	if r.code == "" && r.description == "" {
		return r
	}
	r.code, r.description = printable(r.code, maxCode), printable(r.description, maxDescription)
	secrets := sent.secrets()
	if echoes(r.description, secrets) {
		r.description = ""
	}
	if echoes(r.code, secrets) || !slices.Contains(usualCodes, r.code) && echoesBody(r.code, req) {
		r.code = ""
	}
	return r
}

// usualCodes are error codes that servers give (RFC 6749, 6750, 8628, 8707, 9126, 9449;
// the draft).
var usualCodes = []string{
	"", codeUseChallenge, codeUseFreshAttestation, codeUseDPoPNonce, codeInvalidAttestation, codeInvalidClient,
	"invalid_request", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_token",
	"insufficient_scope", "invalid_target", "invalid_dpop_proof", "authorization_pending", "slow_down", "access_denied",
	"expired_token", "server_error", "temporarily_unavailable", "invalid_request_object", "unsupported_token_type",
}

// printable returns the printable ASCII characters of text, as many as fit.
func printable(text string, limit int) string {
	text = text[:min(len(text), maxBody)]
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, text)
	return text[:min(len(text), limit)]
}

// harmless are header fields and form parameters that hold nothing secret, and that
// texts may well quote.
var (
	harmlessFields     = []string{"Accept", "Accept-Encoding", "Accept-Language", "Content-Length", "Content-Type", "User-Agent"}
	harmlessParameters = []string{
		"grant_type", "client_id", "scope", "resource", "audience", "redirect_uri", "response_type", "code_challenge_method",
		"token_type_hint", "subject_token_type", "actor_token_type", "requested_token_type", "dpop_jkt",
	}
)

// secrets returns what of the headers a text must not repeat. A server may have seen the
// credentials of an earlier send only, and quotes them late.
func (s *sent) secrets() (secrets []string) {
	for ; s != nil; s = s.before {
		for name, values := range s.header {
			if !isOneOf(name, harmlessFields) {
				secrets = append(secrets, values...)
			}
		}
	}
	return secrets
}

// echoesBody reports whether text may repeat a secret of a request's body. A body that
// cannot be read again may hold anything.
func echoesBody(text string, req *http.Request) bool {
	if text == "" || req.Body == nil || req.Body == http.NoBody {
		return false
	}
	if req.GetBody == nil {
		return true
	}
	body, err := req.GetBody()
	if err != nil {
		return true
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err != nil || len(content) > maxBody {
		return true
	}
	form, err := url.ParseQuery(string(content))
	if err != nil || !strings.HasPrefix(req.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return echoes(text, []string{string(content)})
	}
	for name, values := range form {
		for _, value := range values {
			if !slices.Contains(harmlessParameters, name) && echoes(text, []string{value, url.QueryEscape(value)}) {
				return true
			}
		}
	}
	return false
}

// echoes reports whether text repeats more than maxEcho bytes in a row of a secret, or
// the whole of a shorter one.
func echoes(text string, secrets []string) bool {
	for _, secret := range secrets {
		if len(secret) >= minEcho && len(secret) <= maxEcho && strings.Contains(text, secret) {
			return true
		}
		for i := 0; i+maxEcho < len(text); i++ {
			if strings.Contains(secret, text[i:i+maxEcho+1]) {
				return true
			}
		}
	}
	return false
}
