// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestTransportPrintsNoSecret: test 10, also for a source that is a plain value.
func TestTransportPrintsNoSecret(t *testing.T) {
	f := newFixture(t, policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways})
	attestation := f.server.Attester.Attest(f.key.Public())
	rt := f.another(func(c *transport.Config) { c.Attestations = staticSource(attestation) })
	f.Transport = rt
	f.token(http.StatusOK)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "transport", rt, "value", *rt)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "transport", rt)
	marshalled, err := json.Marshal(map[string]any{"transport": rt})
	if err != nil {
		t.Error(err)
	}
	f.noSecretIn(fmt.Sprintf("%v %+v %#v %s %s", rt, rt, rt, marshalled, log.String()))
}

// staticSource is an attestation that is its own source.
type staticSource string

func (s staticSource) Attestation(context.Context, string, []string) (string, error) {
	return string(s), nil
}

// TestLogHoldsNoSecret: at debug level, over everything that is logged.
func TestLogHoldsNoSecret(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, policy{NoEndpoint: true}, func(c *transport.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	attestation, _ := f.source.Attestation(t.Context(), "", nil)
	f.server.Deny(attestation)
	f.token(http.StatusOK) // after two refusals
	text := log.String()
	if n := strings.Count(text, "send again"); n != 2 {
		t.Errorf("%d retries logged, want 2:\n%s", n, text)
	}
	if n := strings.Count(text, "level=WARN"); n != 0 {
		t.Errorf("%d warnings without a cause:\n%s", n, text)
	}
	f.noSecretIn(text)
}

// TestUnmatchedPOSTToTheIssuerIsLogged: decision 7, last sentence.
func TestUnmatchedPOSTToTheIssuerIsLogged(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, policy{}, func(c *transport.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	f.want(http.StatusNotFound, newRequest(t, t.Context(), f.server.URL+"/elsewhere?code=very-secret"))
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "/elsewhere") || strings.Contains(text, "very-secret") {
		t.Errorf("log %q", text)
	}
}

func (s staticSource) Judged(string, bool) {}
