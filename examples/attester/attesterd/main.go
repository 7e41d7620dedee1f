// Command attesterd runs the reference Client Attester.
//
//	go run ./examples/attester/attesterd -client-id abca-client
//
// It prints one line on standard output, with its URL and that of its JWK Set,
// and then serves until it is interrupted. It attests every key whose holder
// asks: it is for trying things out.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/internal/serve"
	"github.com/instancekey/instancekey/keystore"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "attesterd:", err)
		os.Exit(1)
	}
}

func run() error {
	addr := flag.String("addr", "127.0.0.1:8081", "listen on `host:port`; port 0 takes a free one")
	url := flag.String("url", "", "the attester's `URL` as others see it (default: from -addr)")
	clients := flag.String("client-id", "abca-client", "attest instances of these clients, `ID,ID,…`")
	keyFile := flag.String("signing-key", "", "private JWK in `FILE`, made if it is not there (default: a new key each time)")
	issuer := flag.String("iss", "", "put this iss `claim` into attestations")
	lifetime := flag.Duration("lifetime", time.Hour, "how long attestations are valid")
	certFile := flag.String("cert", "", "TLS certificate `FILE` (PEM); without it plain http")
	tlsKeyFile := flag.String("key", "", "TLS key `FILE` (PEM)")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	key, err := signingKey(*keyFile)
	if err != nil {
		return err
	}
	listener, base, err := serve.Listen(*addr, *certFile, *tlsKeyFile)
	if err != nil {
		return err
	}
	defer listener.Close()
	if *url != "" {
		base = *url
	}
	server, err := attester.New(attester.Config{
		URL:      base,
		Clients:  strings.Split(*clients, ","),
		Key:      key,
		Lifetime: *lifetime,
		Issuer:   *issuer,
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	fmt.Printf("attester %s jwks %s/jwks\n", base, strings.TrimSuffix(base, "/"))
	return serve.Run(ctx, listener, server)
}

// signingKey reads a private JWK, or makes one: into the file, if one is named.
func signingKey(file string) (jose.JSONWebKey, error) {
	if file != "" {
		data, err := os.ReadFile(file)
		if err == nil {
			var key jose.JSONWebKey
			if err := json.Unmarshal(data, &key); err != nil {
				return key, fmt.Errorf("%s: %w", file, err)
			}
			return key, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return jose.JSONWebKey{}, err
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	kid, err := keystore.Thumbprint(&private.PublicKey)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	key := jose.JSONWebKey{Key: private, KeyID: kid, Algorithm: string(jose.ES256), Use: "sig"}
	if file == "" {
		return key, nil
	}
	data, err := json.Marshal(key)
	if err != nil {
		return key, err
	}
	return key, os.WriteFile(file, append(data, '\n'), 0o600)
}
