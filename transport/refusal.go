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
	if peek(resp, &answer) != nil {
		return code
	}
	if profile.HasIssuer() && retryable(answer.Description) {
		return answer.Description
	}
	return cmp.Or(answer.Error, code)
}

// peek decodes the JSON value with which a response's body begins, and reads no
// further than it must: not every server ends its answer. The body can then still
// be read from its beginning.
func peek(resp *http.Response, value any) error {
	var start bytes.Buffer
	body := &brittle{Reader: resp.Body}
	err := json.NewDecoder(io.TeeReader(io.LimitReader(body, maxBody), &start)).Decode(value)
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(&start, body), resp.Body}
	return err
}

// brittle is a reader that fails for good: whoever reads on meets the error where it
// was met at first.
type brittle struct {
	io.Reader
	err error
}

func (b *brittle) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	n, b.err = b.Reader.Read(p)
	return n, b.err
}

// retryable reports whether a request may be sent again because of this code.
func retryable(code string) bool {
	switch code {
	case codeUseChallenge, codeUseFreshAttestation, codeUseDPoPNonce:
		return true
	}
	return false
}
