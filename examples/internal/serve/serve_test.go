package serve_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/serve"
)

func TestCheckIdentifier(t *testing.T) {
	good := []string{
		"https://as.example.com", "https://as.example.com/", "https://as.example.com:8443/tenant",
		"http://127.0.0.1:8080", "http://[::1]:8080/x", "http://localhost",
	}
	for _, identifier := range good {
		if _, err := serve.CheckIdentifier(identifier); err != nil {
			t.Errorf("%s: %v", identifier, err)
		}
	}
	bad := []string{
		"", "as.example.com", "https:///x", "https:as.example.com", "http://as.example.com", "http://10.0.0.1",
		"http://localhost.example.com", "ftp://127.0.0.1", "https://as.example.com?", "https://as.example.com#", "https://u@as.example.com", "https://a b",
	}
	for _, identifier := range bad {
		if _, err := serve.CheckIdentifier(identifier); err == nil {
			t.Errorf("%s is accepted", identifier)
		}
	}
	if len(good) != 6 || len(bad) != 12 {
		t.Errorf("%d good and %d bad identifiers, want 6 and 12", len(good), len(bad))
	}
}

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
