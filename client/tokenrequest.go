// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"io"
	"net/http"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/transport"
)

// A tokenRequest is HTTPClient's transport for one request of
// golang.org/x/oauth2. It notes what that package's errors do not wrap.
type tokenRequest struct {
	client   *Client
	http     http.Client     // over this
	outer    context.Context // without that client
	sends    int
	failed   error  // what kept the answer, or the rest of it, from coming
	received []byte // of the body of a success
}

// with returns a context with which x/oauth2 sends the request through it.
func (r *tokenRequest) with(ctx context.Context) context.Context {
	r.http.Transport, r.outer = r, ctx
	return context.WithValue(ctx, oauth2.HTTPClient, &r.http)
}

func (r *tokenRequest) RoundTrip(req *http.Request) (*http.Response, error) {
	// What is called with the request's context, an Attester for example, may make
	// requests of its own with x/oauth2. They are none of this one's.
	resp, err := r.client.send(req.WithContext(r.outer))
	if err != nil {
		r.failed = err
		return nil, err
	}
	r.sends = transport.Sends(resp)
	resp.Body = notingBody{resp.Body, r}
	r.received = makeReadable(resp)
	return resp, nil
}

type notingBody struct {
	io.ReadCloser
	request *tokenRequest
}

func (b notingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.request.failed = err
	}
	return n, err
}
