// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/internal/authchallenge"
)

// A resourceError is a resource's answer that is not a success.
type resourceError struct {
	code   int
	reason string // the error code in WWW-Authenticate, "" for none
}

func (e *resourceError) Error() string {
	text := fmt.Sprintf("resource answered %d %s", e.code, http.StatusText(e.code))
	if e.reason != "" {
		text += " (" + e.reason + ")"
	}
	return text
}

// newResourceError reads what may be printed of a refusal.
func newResourceError(resp *http.Response) error {
	refused := &resourceError{code: resp.StatusCode}
	for _, challenge := range authchallenge.Parse(resp.Header) {
		if reason := challenge.Params["error"]; isCode(reason) {
			refused.reason = reason
			break
		}
	}
	return refused
}

// call calls -resource with a token.
func (r *tokenRun) call(ctx context.Context, token *oauth2.Token) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.flags.resource, nil)
	if err != nil {
		return err
	}
	token.SetAuthHeader(req)
	direct := *r.http
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := direct.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxFile) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return newResourceError(resp)
	}
	return nil
}
