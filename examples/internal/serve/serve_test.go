// SPDX-License-Identifier: Apache-2.0

package serve_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/serve"
)

func TestListenAndRun(t *testing.T) {
	l, url, err := serve.Listen("127.0.0.1:0", "", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- serve.Run(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") }))
	}()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || string(text) != "here" || strings.HasSuffix(url, ":0") {
		t.Errorf("%s: %q, %v", url, text, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}

	for _, files := range [][2]string{{"cert.pem", ""}, {"", "key.pem"}, {"no/cert.pem", "no/key.pem"}} {
		if _, _, err := serve.Listen("127.0.0.1:0", files[0], files[1]); err == nil {
			t.Errorf("Listen with %v works", files)
		}
	}
}
