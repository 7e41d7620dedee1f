// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A pushed authorization request and the token request that redeems its code
// are the same instance's, but nothing signs the former's body: whoever can
// change it on its way, a gateway that ends TLS for example, decides what the
// code is for. A token request that vouches for the body as it was sent stops
// that.
func ExampleBindMessage() {
	var arrived []byte // the pushed body, as the server keeps it with the code
	mux := http.NewServeMux()
	mux.HandleFunc("POST /par", func(w http.ResponseWriter, r *http.Request) {
		arrived, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusCreated)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		// Signature, audience and challenge are verified here, as ever.
		pop := transporttest.ParseProof(r.Header.Get(transport.HeaderAttestationPoP))
		if pop == nil || pop.Claims["req_hash"] != sha256Half(arrived) {
			http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()

	authorize := func(gateway http.RoundTripper) {
		rt, err := transport.New(transport.Config{
			Key:          exampleKey,
			Attestations: provisioned{"a.b.c"},
			Servers:      []transport.Server{{Issuer: server.URL, Endpoints: []string{server.URL + "/par", server.URL + "/token"}}},
			Base:         gateway,
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		post := func(ctx context.Context, path, body string) string {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+path, strings.NewReader(body))
			if err != nil {
				return err.Error()
			}
			resp, err := rt.RoundTrip(req)
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close()
			return resp.Status
		}
		pushed := url.Values{"client_id": {"meter"}, "response_type": {"code"}, "scope": {"readings.write"}}.Encode()
		fmt.Println("pushed:", post(context.Background(), "/par", pushed))
		// The user authorizes what was pushed, and the code comes back.
		ctx := transport.BindMessage(context.Background(), []byte(pushed))
		fmt.Println("token: ", post(ctx, "/token", "grant_type=authorization_code&code=x"))
	}

	authorize(http.DefaultTransport)
	fmt.Println("with another scope on the way:")
	authorize(roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.URL.Path == "/par" {
			body, _ := io.ReadAll(req.Body)
			changed := strings.Replace(string(body), "readings.write", "admin", 1)
			req.Body, req.ContentLength = io.NopCloser(strings.NewReader(changed)), int64(len(changed))
		}
		return http.DefaultTransport.RoundTrip(req)
	}))
	// Output:
	// pushed: 201 Created
	// token:  200 OK
	// with another scope on the way:
	// pushed: 201 Created
	// token:  400 Bad Request
}
