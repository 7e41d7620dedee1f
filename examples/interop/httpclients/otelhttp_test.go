// SPDX-License-Identifier: Apache-2.0

package httpclients_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/clienttest"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestOtelHTTP: around the Client's HTTP client a span is a request of the program; in
// Config.Base it is each request that is sent. No span has a credential.
func TestOtelHTTP(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	traced := func(over http.RoundTripper) http.RoundTripper {
		return otelhttp.NewTransport(over, otelhttp.WithTracerProvider(provider))
	}
	services := clienttest.New(t, clienttest.Config{AttestedResource: true, Policy: transporttest.Policy{Kind: transporttest.SingleUse}})
	for name, test := range map[string]struct {
		around, base bool
		spans        int
	}{
		"around": {true, false, 2},
		// Metadata of server and resource, a challenge, the token, twice the resource.
		"base": {false, true, 6},
		"both": {true, true, 8},
	} {
		t.Run(name, func(t *testing.T) {
			recorder.Reset()
			cfg := services.ClientConfig()
			if test.base {
				cfg.Base = traced(http.DefaultTransport)
			}
			c, err := client.New(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			api := c.ResourceClient("read")
			if test.around {
				api.Transport = traced(api.Transport)
			}
			for range 2 {
				resp, err := api.Get(services.Resource.URL)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("status %d", resp.StatusCode)
				}
			}
			spans := recorder.Ended()
			if len(spans) != test.spans {
				t.Errorf("%d spans, want %d", len(spans), test.spans)
			}
			for _, span := range spans {
				if text := fmt.Sprint(span.Attributes()); strings.Contains(text, "eyJ") {
					t.Errorf("a span has a JWT: %s", text)
				}
			}
		})
	}
}
