// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// maxTokenResponse is what golang.org/x/oauth2 reads of a response, in bytes.
const maxTokenResponse = 1 << 20

// makeReadable makes a token response one that golang.org/x/oauth2 can read, which
// drops the whole response for one odd member: 3600.0 as its expires_in, for
// example. By then the server has spent the refresh token that was sent, and the
// next one is lost. A response that needs nothing stays as it is, byte for byte.
//
// received is what has come of the body of a success, for refreshTokenIn.
func makeReadable(resp *http.Response) (received []byte) {
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil // holds no token, and the transport has read it
	}
	received, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenResponse))
	body, changed := readableToken(received)
	resp.Body = &readBody{body, err, resp.Body}
	if changed {
		resp.ContentLength = -1
	}
	// It takes text/plain for a form.
	if mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); strings.TrimSpace(strings.ToLower(mediaType)) == "text/plain" && json.Valid(body) {
		resp.Header = resp.Header.Clone()
		resp.Header.Set("Content-Type", "application/json")
	}
	return received
}

// readBody is a response's body that has been read.
type readBody struct {
	content []byte
	err     error // that reading has ended with; nil at its end
	io.Closer
}

func (b *readBody) Read(p []byte) (int, error) {
	n := copy(p, b.content)
	b.content = b.content[n:]
	switch {
	case n > 0 || len(p) == 0:
		return n, nil
	case b.err != nil:
		return 0, b.err
	default:
		return 0, io.EOF
	}
}

// readableToken returns a token response's JSON with its odd members mended, or the
// body as it is, if there are none or it is no JSON object.
func readableToken(body []byte) (readable []byte, changed bool) {
	if isPlain(body) {
		return body, false
	}
	content := bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	var members map[string]json.RawMessage
	if json.Unmarshal(content, &members) != nil {
		return body, false
	}
	changed = len(content) != len(body)
	for name, value := range members {
		switch {
		case strings.EqualFold(name, "expires_in"): // as encoding/json compares
			seconds, ok := readSeconds(value)
			if mended := strconv.FormatInt(seconds, 10); !ok {
				delete(members, name)
				changed = true
			} else if mended != string(value) {
				members[name] = json.RawMessage(mended)
				changed = true
			}
		case slices.ContainsFunc(optionalText, func(optional string) bool { return strings.EqualFold(name, optional) }):
			if json.Unmarshal(value, new(string)) != nil {
				delete(members, name)
				changed = true
			}
		}
	}
	if !changed {
		return body, false
	}
	readable, err := json.Marshal(members)
	if err != nil {
		return body, false
	}
	return readable, true
}

// isPlain reports whether x/oauth2 reads a token response as it is, which is the usual
// case and cheaper to tell than what is odd.
func isPlain(body []byte) bool {
	var plain struct {
		ExpiresIn   int32  `json:"expires_in"`
		TokenType   string `json:"token_type"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
		URI         string `json:"error_uri"`
	}
	return json.Unmarshal(body, &plain) == nil
}

// optionalText are the members, beside the tokens themselves, that must be text for
// x/oauth2 if they are there at all.
var optionalText = []string{"token_type", "error", "error_description", "error_uri"}

// readSeconds reads an expires_in: a JSON number (RFC 6749, section 5.1), which may
// have a fraction or an exponent, or text that holds one. Everything else says
// nothing: ok is false. The result is at most what x/oauth2 does not wrap around.
func readSeconds(value []byte) (seconds int64, ok bool) {
	var text string
	if json.Unmarshal(value, &text) == nil { // null, too, which leaves it empty
		value = []byte(strings.TrimSpace(text))
	}
	if !json.Valid(value) || !strings.ContainsAny(string(value[:1]), "-0123456789") {
		return 0, false
	}
	number, _ := strconv.ParseFloat(string(value), 64) // infinite beyond its range
	if 0 < number && number < 1 {
		return 1, true // 0 would be read as without an end
	}
	return int64(max(-math.MaxInt32, min(number, math.MaxInt32))), true
}

// refreshTokenIn returns the refresh token in what has been received of a token
// response, be it cut short or otherwise unreadable; "" if there is none.
func refreshTokenIn(received []byte) string {
	decoder := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(received, []byte("\xef\xbb\xbf"))))
	if first, err := decoder.Token(); err != nil || first != json.Delim('{') {
		return ""
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return ""
		}
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return ""
		}
		var token string
		if name == "refresh_token" && json.Unmarshal(value, &token) == nil && token != "" {
			return token
		}
	}
	return ""
}
