// SPDX-License-Identifier: Apache-2.0

package clienttest_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/clienttest"
	"github.com/instancekey/instancekey/internal/examplet"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// sendReading is of the app that is tested.
func sendReading(ctx context.Context, c *client.Client, api, reading string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, api, strings.NewReader(reading))
	if err != nil {
		return err
	}
	resp, err := c.ResourceClient("readings.write").Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the API answered %s", resp.Status)
	}
	return nil
}

// The lines of a test of an app: its function sendReading survives an access token that
// is revoked.
func Example() {
	t := examplet.New() // in a test: func TestSendReading(t *testing.T)
	defer t.End()

	services := clienttest.New(t, clienttest.Config{})
	c, err := client.New(t.Context(), services.ClientConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		if err := sendReading(t.Context(), c, services.Resource.URL, "21.5"); err != nil {
			t.Fatal(err)
		}
		services.RevokeTokens() // then sendReading has to get another one
	}
	if n := services.Server.Count(transporttest.Token); n != 2 {
		t.Errorf("%d token requests, want 2", n)
	}
	for _, r := range services.Resource.Requests() {
		t.Logf("%s %s: %s", r.Method, r.Body, r.Reason)
	}

	// Output:
	// POST 21.5:
	// POST 21.5: the access token is unknown, revoked or expired
	// POST 21.5:
}
