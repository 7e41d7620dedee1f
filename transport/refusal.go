// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/go-jose/go-jose/v4/json"

	"github.com/instancekey/instancekey/internal/authchallenge"
)

// A refusal is what a response refuses a request with. The zero refusal is none.
type refusal struct {
	status            int
	code, description string // of OAuth, as the server wrote them
}

// refusalOf returns what a response refuses a request with. Authorization servers put
// that into a JSON body, resources into WWW-Authenticate, under one scheme or
// another (draft, "Error Responses"). The response's body can still be read from
// its beginning.
//
// The code decides, not the status: some servers answer with 400 what others
// answer with 401. A resource may refuse under several schemes at once; what it
// says of DPoP proofs is passed over if the request had none.
func refusalOf(resp *http.Response, to *route) refusal {
	if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusUnauthorized {
		return refusal{}
	}
	r := refusal{status: resp.StatusCode}
	for _, challenge := range authchallenge.Parse(resp.Header) {
		r.code, r.description = challenge.Params["error"], challenge.Params["error_description"]
		if retryable(r.code) && (to.dpop != nil || r.code != codeUseDPoPNonce) {
			return r
		}
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mediaType != "application/json" && !strings.HasSuffix(mediaType, "+json") {
		return r
	}
	var answer struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if peek(resp, &answer) != nil {
		return r
	}
	switch {
	case to.profile.HasIssuer() && retryable(answer.Description):
		r.code, r.description = answer.Description, ""
	case answer.Error != "":
		r.code, r.description = answer.Error, answer.Description
	}
	return r
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
