package transport

import (
	"bytes"
	"cmp"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/go-jose/go-jose/v4/json"

	"github.com/instancekey/instancekey/internal/authchallenge"
)

// refusalCode returns the OAuth error code of a response that refuses a
// request, "" if the response is none or has none. Authorization servers put it
// into a JSON body, resources into WWW-Authenticate, under one scheme or
// another (draft, "Error Responses"). The response's body can still be read from
// its beginning.
//
// The code decides, not the status: some servers answer with 400 what others
// answer with 401. A resource may refuse under several schemes at once; what it
// says of DPoP proofs is passed over if the request had none (proved).
func refusalCode(resp *http.Response, profile Profile, proved bool) string {
	if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusUnauthorized {
		return ""
	}
	code := ""
	for _, challenge := range authchallenge.Parse(resp.Header) {
		code = challenge.Params["error"]
		if retryable(code) && (proved || code != codeUseDPoPNonce) {
			return code
		}
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mediaType != "application/json" && !strings.HasSuffix(mediaType, "+json") {
		return code
	}
	var answer struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(peek(resp), &answer) != nil {
		return code
	}
	if profile == ProfileOpenID4VCI && retryable(answer.Description) {
		return answer.Description
	}
	return cmp.Or(answer.Error, code)
}

// peek returns the beginning of a response's body, which can then still be
// read from there.
func peek(resp *http.Response) []byte {
	start, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = failingReader{err} // the caller meets the error where we met it
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(start), rest), resp.Body}
	return start
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// retryable reports whether a request may be sent again because of this code.
func retryable(code string) bool {
	switch code {
	case codeUseChallenge, codeUseFreshAttestation, codeUseDPoPNonce:
		return true
	}
	return false
}
