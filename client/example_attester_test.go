// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

// deviceCloud is a Client Attester with a protocol of its own: it knows each
// device by its TLS certificate, and attests the key that the device posts.
type deviceCloud struct {
	client *http.Client // with the device's certificate
	serial string
}

// Attest implements client.Attester.
func (d deviceCloud) Attest(ctx context.Context, req client.AttestRequest) (string, error) {
	jwk, err := keystore.JWK(req.Key.Public())
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(jwk)
	if err != nil {
		return "", err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://cloud.example.com/devices/"+d.serial+"/attestation", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := d.client.Do(post)
	if err != nil {
		return "", fmt.Errorf("%w: %w", client.ErrAttesterUnavailable, err)
	}
	defer resp.Body.Close()
	attestation, err := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	switch {
	case resp.StatusCode == http.StatusForbidden:
		return "", fmt.Errorf("%w: device %s is blocked", client.ErrAttestationRefused, d.serial)
	case err != nil || resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("%w: %s", client.ErrAttesterUnavailable, resp.Status)
	}
	return string(attestation), nil // the Client checks it before it is used
}

// An Attester speaks whatever protocol a vendor's Client Attester has.
func ExampleAttester() {
	ctx := context.Background()
	c, err := client.New(ctx, client.Config{
		Issuer:   "https://as.example.com",
		ClientID: "meter-firmware",
		Store:    softkey.New(), // tpm.Open on a device
		Attester: deviceCloud{http.DefaultClient, "SN-1007"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	token, err := c.Token(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Type())
	// Output: Bearer
}
