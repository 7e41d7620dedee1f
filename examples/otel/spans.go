// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
)

// spans makes a span of each thing that a request waits for. Its parent is the
// span in the request's context; what several requests wait for is in the trace
// of the first. Nothing in a span is a secret: a TraceEvent holds none.
func spans(tracer trace.Tracer) *client.Trace {
	record := func(name string, kind trace.SpanKind) func(context.Context, transport.TraceEvent) {
		return func(ctx context.Context, e transport.TraceEvent) {
			// The hooks are called when it is over.
			_, span := tracer.Start(ctx, name, trace.WithTimestamp(e.Start), trace.WithSpanKind(kind), trace.WithAttributes(attributes(e)...))
			if e.Err != nil {
				span.SetStatus(codes.Error, e.Err.Error())
			} else if e.Status >= 400 {
				span.SetStatus(codes.Error, e.Code)
			}
			span.End(trace.WithTimestamp(e.Start.Add(e.Duration)))
		}
	}
	return &client.Trace{
		Renewal: record("get attestation", trace.SpanKindClient),
		Trace: transport.Trace{
			Challenge: record("get challenge", trace.SpanKindClient),
			Signature: record("sign", trace.SpanKindInternal),
			Request:   record("send", trace.SpanKindClient),
		},
	}
}

func attributes(e transport.TraceEvent) (list []attribute.KeyValue) {
	if e.Audience != "" {
		list = append(list, attribute.String("oauth.audience", e.Audience))
	}
	if e.Send > 1 {
		list = append(list, attribute.Int("http.request.resend_count", e.Send-1))
	}
	if e.Status > 0 {
		list = append(list, attribute.Int("http.response.status_code", e.Status))
	}
	if e.Code != "" {
		list = append(list, attribute.String("error.type", e.Code))
	}
	return list
}
