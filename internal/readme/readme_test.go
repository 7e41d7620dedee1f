// SPDX-License-Identifier: Apache-2.0

// Package readme_test keeps the README true: what it shows as Go is compiled
// here.
package readme_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/tpm"
)

var _ = []any{firstProgram, anyOtherGrant, resourceCall}

func firstProgram(ctx context.Context) error {
	store, err := tpm.Open(ctx, tpm.Config{Dir: "/var/lib/meter/keys"}) // /dev/tpmrm0, or TBS on Windows
	if err != nil {
		return err
	}
	defer store.Close()

	c, err := client.New(ctx, client.Config{
		Issuer:   "https://as.example.com",
		ClientID: "meter-firmware",
		Store:    store, // the key is made the first time, and found again later
		Attester: client.HTTPAttester{URL: "https://attester.example.com"},
		Cache:    client.DirCache("/var/lib/meter/attestations"),
	})
	if err != nil {
		return err
	}
	defer c.Close()

	token, err := c.Token(ctx, "readings.write") // client credentials; cached

	_ = token
	return err
}

func anyOtherGrant(ctx context.Context, c *client.Client, code, verifier string) (*oauth2.Token, error) {
	endpoint, err := c.Endpoint(ctx)
	if err != nil {
		return nil, err
	}
	config := oauth2.Config{ClientID: "meter-firmware", Endpoint: endpoint}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, c.HTTPClient())
	token, err := config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	return token, err
}

func resourceCall(c *client.Client, body io.Reader) (*http.Response, error) {
	// In Config, or no token is put on: Resources: []client.Resource{{Identifier: "https://api.example.com/readings"}}
	resp, err := c.ResourceClient("readings.write").Post("https://api.example.com/readings", "application/json", body)
	return resp, err
}

func TestREADME(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	// The test of an app is an Example, which runs.
	example, err := os.ReadFile("../../client/clienttest/example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	compiled := strings.ReplaceAll(string(source), "\n\t", "\n") + string(example)
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) != 4 {
		t.Errorf("the README has %d Go blocks, want 4", len(blocks))
	}
	for _, block := range blocks {
		shown := block[1]
		if body, isTest := strings.CutPrefix(shown, "func TestSendReading(t *testing.T) {\n"); isTest {
			shown = strings.TrimSuffix(body, "}\n")
			if lines := strings.Count(block[1], "\n"); lines > 20 {
				t.Errorf("the README's test has %d lines", lines)
			}
		}
		if !strings.Contains(compiled, shown) {
			t.Errorf("the README shows what is not compiled here:\n%s", block[1])
		}
	}
}
