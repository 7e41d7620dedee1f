// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/instancekey/instancekey/transport"
)

func recorded(t *testing.T) (trace.Tracer, *tracetest.SpanRecorder) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	t.Cleanup(func() {
		if err := provider.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return provider.Tracer("test"), recorder
}

// TestColdAndWarm: which spans there are, and below which.
func TestColdAndWarm(t *testing.T) {
	tracer, recorder := recorded(t)
	if err := coldAndWarm(t.Context(), tracer); err != nil {
		t.Fatal(err)
	}
	names := make(map[trace.SpanID]string)
	for _, span := range recorder.Ended() {
		names[span.SpanContext().SpanID()] = span.Name()
	}
	var got []string
	traces := make(map[trace.TraceID]bool)
	for _, span := range recorder.Ended() {
		parent := "nothing"
		if span.Parent().IsValid() {
			parent = names[span.Parent().SpanID()]
		}
		got = append(got, span.Name()+" below "+parent)
		traces[span.SpanContext().TraceID()] = true
		if span.EndTime().Before(span.StartTime()) || span.Status().Code == codes.Error {
			t.Errorf("%s: %v to %v, %v", span.Name(), span.StartTime(), span.EndTime(), span.Status())
		}
		if text := fmt.Sprint(span.Attributes()); strings.Contains(text, "eyJ") {
			t.Errorf("%s has a JWT in its attributes", span.Name())
		}
	}
	want := []string{
		"get attestation below cold token", "get challenge below cold token", "sign below cold token", "send below cold token", "cold token below two tokens",
		"sign below warm token", "send below warm token", "warm token below two tokens",
		"two tokens below nothing",
	}
	if !slices.Equal(got, want) || len(traces) != 1 {
		t.Errorf("%d traces with spans\n%s\nwant one with\n%s", len(traces), strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestEvents: what becomes of each field of an event.
func TestEvents(t *testing.T) {
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		event      transport.TraceEvent
		attributes string
		status     sdk.Status
	}{
		"nothing": {transport.TraceEvent{}, "", sdk.Status{}},
		"good": {
			transport.TraceEvent{Audience: "https://as.example.com", Send: 1, Status: 200},
			"oauth.audience=https://as.example.com http.response.status_code=200", sdk.Status{},
		},
		"refused": {
			transport.TraceEvent{Send: 2, Status: 400, Code: "use_attestation_challenge"},
			"http.request.resend_count=1 http.response.status_code=400 error.type=use_attestation_challenge",
			sdk.Status{Code: codes.Error, Description: "use_attestation_challenge"},
		},
		"failed": {transport.TraceEvent{Err: errors.New("no network")}, "", sdk.Status{Code: codes.Error, Description: "no network"}},
	} {
		t.Run(name, func(t *testing.T) {
			tracer, recorder := recorded(t)
			test.event.Start, test.event.Duration = start, 3*time.Second
			hooks := spans(tracer)
			for _, hook := range []func(context.Context, transport.TraceEvent){hooks.Renewal, hooks.Challenge, hooks.Signature, hooks.Request} {
				hook(t.Context(), test.event)
			}
			ended := recorder.Ended()
			if len(ended) != 4 {
				t.Fatalf("%d spans, want 4", len(ended))
			}
			for _, span := range ended {
				var attributes []string
				for _, a := range span.Attributes() {
					attributes = append(attributes, string(a.Key)+"="+a.Value.String())
				}
				if got := strings.Join(attributes, " "); got != test.attributes || span.Status() != test.status {
					t.Errorf("%s: %s, %v", span.Name(), got, span.Status())
				}
				if !span.StartTime().Equal(start) || !span.EndTime().Equal(start.Add(3*time.Second)) {
					t.Errorf("%s: %v to %v", span.Name(), span.StartTime(), span.EndTime())
				}
			}
		})
	}
}

// TestRun is the program: nine spans, printed.
func TestRun(t *testing.T) {
	var stdout strings.Builder
	if err := run(t.Context(), &stdout); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(stdout.String(), `"Name": "send"`); n != 2 || strings.Contains(stdout.String(), "eyJ") {
		t.Errorf("%d sends in %s", n, &stdout)
	}
}
