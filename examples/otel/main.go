// SPDX-License-Identifier: Apache-2.0

// Command otel shows as OpenTelemetry spans what the first token request of a
// process waits for, and what a later one does. It is a module of its own, so
// that nobody who uses instancekey has OpenTelemetry among their dependencies.
//
//	cd examples/otel && go run .
//
// spans.go is all that a program needs; the rest is a demonstration against
// reference servers in this process, with a key in software.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/reference"
	"github.com/instancekey/instancekey/softkey"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "otel: %v\n", err)
		os.Exit(1)
	}
}

// run prints the spans of the demonstration, one JSON object a span.
func run(ctx context.Context, stdout io.Writer) (err error) {
	exporter, err := stdouttrace.New(stdouttrace.WithWriter(stdout), stdouttrace.WithPrettyPrint())
	if err != nil {
		return err
	}
	provider := sdk.NewTracerProvider(sdk.WithSyncer(exporter))
	defer func() { err = errors.Join(err, provider.Shutdown(ctx)) }()
	return coldAndWarm(ctx, provider.Tracer("github.com/instancekey/instancekey/examples/otel"))
}

// coldAndWarm gets two tokens in one trace: the first with an attestation and a
// challenge to fetch, the second with both at hand.
func coldAndWarm(ctx context.Context, tracer trace.Tracer) (err error) {
	const clientID = "otel-client"
	silent := slog.New(slog.DiscardHandler)
	servers, err := reference.Start(reference.Config{
		Attester: attester.Config{Clients: []string{clientID}, Logger: silent},
		AuthServer: authserver.Config{
			Clients:    []authserver.Client{{ID: clientID, Scopes: []string{"read", "write"}}},
			Challenges: &authserver.ChallengeConfig{Endpoint: true},
			Logger:     silent,
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Close()) }()
	c, err := client.New(ctx, client.Config{
		Issuer:   servers.Issuer,
		ClientID: clientID,
		Store:    softkey.New(),
		Attester: client.HTTPAttester{URL: servers.AttesterURL},
		Trace:    spans(tracer),
	})
	if err != nil {
		return err
	}
	defer c.Close()

	ctx, root := tracer.Start(ctx, "two tokens")
	defer root.End()
	if err := token(ctx, tracer, c, "cold token", "read"); err != nil {
		return err
	}
	return token(ctx, tracer, c, "warm token", "write")
}

// token is what a program traces anyhow: the spans of spans are below its own.
func token(ctx context.Context, tracer trace.Tracer, c *client.Client, name, scope string) error {
	ctx, span := tracer.Start(ctx, name)
	defer span.End()
	if _, err := c.Token(ctx, scope); err != nil {
		span.SetStatus(codes.Error, err.Error())
		return err
	}
	return nil
}
