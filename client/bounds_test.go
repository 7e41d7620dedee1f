// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// endless answers with a body that has no end that matters, and counts what is
// read of it.
type endless struct{ status int }

var endlessRead atomic.Int64

func (e endless) RoundTrip(req *http.Request) (*http.Response, error) {
	body := struct {
		io.Reader
		io.Closer
	}{io.LimitReader(spaces{}, 64<<20), http.NoBody}
	return &http.Response{StatusCode: e.status, Header: make(http.Header), Body: body, Request: req}, nil
}

// spaces is what may come before any JSON value.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	endlessRead.Add(int64(len(p)))
	return len(p), nil
}

func TestReadsAreBounded(t *testing.T) {
	request := client.AttestRequest{ClientID: "client", Key: newKey(t, "ES256")}
	for name, status := range map[string]int{"OK": 200, "refusal": 403, "error": 500} {
		for what, read := range map[string]func() error{
			"metadata": func() error {
				c, err := client.New(t.Context(), client.Config{Issuer: issuerURL, ClientID: "client", Key: request.Key, Attester: &testAttester{}, Base: endless{status}})
				if err != nil {
					return err
				}
				defer c.Close()
				_, err = c.Endpoint(t.Context())
				if !errors.Is(err, client.ErrMetadata) {
					t.Errorf("error %v, want ErrMetadata", err)
				}
				return err
			},
			"token": func() error {
				r := newRig(t, transporttest.Policy{})
				c := r.client(t, func(cfg *client.Config) {
					cfg.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
						if req.URL.Path == r.path(transporttest.Token) {
							return endless{status}.RoundTrip(req)
						}
						return inProcess{r}.RoundTrip(req)
					})
				})
				_, err := c.Token(t.Context())
				return err
			},
			"attester": func() error {
				_, err := client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: endless{status}}}.Attest(t.Context(), request)
				return err
			},
		} {
			t.Run(what+" "+name, func(t *testing.T) {
				endlessRead.Store(0)
				if err := read(); err == nil {
					t.Error("no error")
				}
				if n := endlessRead.Load(); n > 2<<20 {
					t.Errorf("%d bytes read of an endless answer", n)
				}
			})
		}
	}
}
