package transport

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/go-jose/go-jose/v4/json"
)

// refusalCode returns the OAuth error code of a response that refuses a
// request, "" if the response is none or has none. The response's body can
// still be read from its beginning.
//
// The code decides, not the status: some servers answer with 400 what others
// answer with 401.
func refusalCode(resp *http.Response, profile Profile) string {
	if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusUnauthorized {
		return ""
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mediaType != "application/json" && !strings.HasSuffix(mediaType, "+json") {
		return ""
	}
	start, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = failingReader{err} // the caller meets the error where we met it
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(start), rest), resp.Body}

	var answer struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(start, &answer) != nil {
		return ""
	}
	if profile == ProfileOpenID4VCI && retryable(answer.Description) {
		return answer.Description
	}
	return answer.Error
}

// retryable reports whether a request may be sent again because of this code.
func retryable(code string) bool {
	switch code {
	case codeUseChallenge, codeUseFreshAttestation, codeUseDPoPNonce:
		return true
	}
	return false
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }
