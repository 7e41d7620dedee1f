// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/transport"
)

// TestTraceKey: New tells of the key whether it was there, and what went wrong.
func TestTraceKey(t *testing.T) {
	store, given := softkey.New(), newKey(t, "ES256")
	for _, tt := range []struct {
		name, kind string
		change     func(*client.Config)
		want       error
	}{
		{"new", "create", func(*client.Config) {}, nil},
		{"there", "open", func(*client.Config) {}, nil},
		{"given", "given", func(cfg *client.Config) { cfg.Store, cfg.KeyName, cfg.Key = nil, "", given }, nil},
		{"missing", "open", func(cfg *client.Config) {
			cfg.KeyName, cfg.Attester = "other", client.PushAttester{File: "none"}
		}, keystore.ErrNotFound},
	} {
		var events []transport.TraceEvent
		var key keystore.Key
		cfg := client.Config{
			Issuer: "https://as.example.com", ClientID: "client", Store: store, KeyName: "key",
			Attester: client.HTTPAttester{URL: "https://attester.example.com"},
			Trace: &client.Trace{Key: func(_ context.Context, k keystore.Key, e transport.TraceEvent) {
				events, key = append(events, e), k
			}},
		}
		tt.change(&cfg)
		c, err := client.New(t.Context(), cfg)
		if !errors.Is(err, tt.want) || len(events) != 1 || events[0].Kind != tt.kind || !errors.Is(events[0].Err, tt.want) || events[0].Start.IsZero() {
			t.Errorf("%s: %v, %+v", tt.name, err, events)
			continue
		}
		if err == nil && key != c.Key() || err != nil && key != nil {
			t.Errorf("%s: the trace has another key", tt.name)
		}
	}
}

// TestTraceEvidence: each use of the key on behalf of an attester is told once, with
// its error.
func TestTraceEvidence(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		fail string
		want []string
	}{
		{"all", "", []string{"enrolment", "activate", "evidence", "request"}},
		{"no enrolment", "Enrolment", []string{"enrolment"}},
		{"no activation", "Activate", []string{"enrolment", "activate"}},
		{"no evidence", "Evidence", []string{"enrolment", "activate", "evidence"}},
	} {
		a, key := newEvidenceAttester(t), newDeviceKey(t)
		key.fail[tt.fail] = broken
		var kinds []string
		var last error
		_, err := client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: inProcess{a}}}.Attest(t.Context(), client.AttestRequest{
			ClientID: "client", Key: key,
			Trace: &client.Trace{Evidence: func(_ context.Context, e transport.TraceEvent) {
				kinds, last = append(kinds, e.Kind), e.Err
			}},
		})
		if !slices.Equal(kinds, tt.want) || (last != nil) != (tt.fail != "") || !errors.Is(err, last) {
			t.Errorf("%s: %q, %v, %v", tt.name, kinds, last, err)
		}
	}
}
