// SPDX-License-Identifier: Apache-2.0

// Command attesterd runs the reference Client Attester.
//
//	go run ./examples/attester/attesterd -client-id abca-client
//
// It prints one line on standard output, with its URL and that of its JWK Set,
// and then serves until it is interrupted. Like this it attests every key whose
// holder asks, which is for trying things out. It demands TPM evidence if it
// knows makers of TPMs:
//
//	attesterd -tpm-roots DIR -tpm-links DIR -registry FILE -reference FILE -ak-ca FILE …
//
// The first four are read again when they change, without a restart, within 15
// seconds. With -check it reads all files, says what is wrong with them, and exits.
//
// With -provision it serves nothing, but makes the key and the attestation of
// one device, step (f), which works for as long as -lifetime says:
//
//	attesterd -tpm-roots DIR -registry FILE -signing-key FILE -provision EK -lifetime 43800h -out DIR
//
// The forms of all files are in ../PROTOCOL.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/internal/serve"
	"github.com/instancekey/instancekey/examples/internal/watch"
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
	keyFile := flag.String("signing-key", "", "private JWK in `FILE`, made if it is not there (default: a new key each time); its x5c is sent, without the trust anchor")
	issuer := flag.String("iss", "", "put this iss `claim` into attestations")
	lifetime := flag.Duration("lifetime", time.Hour, "how long attestations are valid; must be given with -provision, as the device cannot renew")
	rounding := flag.Duration("round", 0, "round iat and exp of attestations down to multiples of this, at most half of -lifetime")
	claimsFile := flag.String("claims", "", "put the members of the JSON object in `FILE` into attestations")
	certFile := flag.String("cert", "", "TLS certificate `FILE` (PEM); without it plain http")
	tlsKeyFile := flag.String("key", "", "TLS key `FILE` (PEM)")
	var files evidenceFiles
	files.register(flag.CommandLine)
	check := flag.Bool("check", false, "read all files, say what is wrong with them, and exit")
	ek := flag.String("provision", "", "make key and attestation for the device with this `EK` (SHA-256, as in the registry), and serve nothing")
	out := flag.String("out", ".", "put what -provision makes into `DIR`")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}

	if *ek != "" && !given("lifetime") {
		return errors.New("-provision needs -lifetime, such as 43800h for five years: the device cannot renew its attestation, and stops working when it has expired")
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if *check {
		if err := checkFiles(&files, *keyFile, *claimsFile, log); err != nil {
			return err
		}
		fmt.Println("the files are good")
		return nil
	}
	digest := watch.Digest(files.watched())
	verifier, known, err := files.load(log)
	if err != nil {
		return err
	}
	key, err := signingKey(*keyFile)
	if err != nil {
		return err
	}
	claims, err := vendorClaims(*claimsFile)
	if err != nil {
		return err
	}
	cfg := attester.Config{
		URL:      *url,
		Clients:  strings.Split(*clients, ","),
		Key:      key,
		Evidence: verifier,
		Lifetime: *lifetime,
		Issuer:   *issuer,
		Rounding: *rounding,
		Claims:   claims,
		Logger:   log,
	}
	if *ek != "" {
		if *keyFile == "" {
			return errors.New("-provision needs -signing-key: nobody knows a key that was just made")
		}
		return provision(cfg, *ek, *out, *lifetime)
	}

	listener, base, err := serve.Listen(*addr, *certFile, *tlsKeyFile)
	if err != nil {
		return err
	}
	defer listener.Close()
	if cfg.URL == "" {
		cfg.URL = base
	}
	server, err := attester.New(cfg)
	if err != nil {
		return err
	}
	if verifier != nil {
		go files.follow(ctx, digest, verifier, known, log)
	}
	fmt.Printf("attester %s jwks %s/jwks\n", cfg.URL, strings.TrimSuffix(cfg.URL, "/"))
	return serve.Run(ctx, listener, server)
}

// given reports whether a flag is on the command line.
func given(name string) (found bool) {
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}
