// SPDX-License-Identifier: Apache-2.0

// Command authserverd runs the reference authorization server.
//
//	go run ./examples/authserver/authserverd -attester-jwks http://127.0.0.1:8081/jwks
//
// It reads the attester's keys, prints one line with its issuer identifier on
// standard output, and one with its resource's if -resource gives it one, and
// then serves until it is interrupted. Files that say whom to trust are read again
// when they change, within a quarter of a minute, and a JWK Set at a URL every
// minute.
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

	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/internal/serve"
	"github.com/instancekey/instancekey/examples/internal/watch"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "authserverd:", err)
		os.Exit(1)
	}
}

func run() error {
	var cfg authserver.Config
	addr := flag.String("addr", "127.0.0.1:8080", "listen on `host:port`; port 0 takes a free one")
	flag.StringVar(&cfg.Issuer, "issuer", "", "issuer identifier, a `URL` (default: from -addr)")
	var trust trustFiles
	trust.register(flag.CommandLine)
	check := flag.Bool("check", false, "read all files, say what is wrong with them, and exit")
	clients := flag.String("client-id", "abca-client", "register these clients, `ID,ID,…`")
	scopes := flag.String("scope", "", "`scopes` that clients may have, separated by spaces")
	method := flag.String("method", "pop", "`method` that clients are registered for: pop, or dpop (combined mode)")
	challenge := flag.String("challenge", "endpoint", "challenges from the `place`: endpoint, header, both, error (only there), none")
	singleUse := flag.Bool("single-use", false, "each challenge is good for one request")
	challengeLifetime := flag.Duration("challenge-lifetime", 5*time.Minute, "how long a challenge is valid")
	flag.BoolVar(&cfg.DPoPNonces, "dpop-nonce", false, "demand server-provided nonces in DPoP proofs")
	flag.BoolVar(&cfg.RefreshTokens, "refresh", false, "issue refresh tokens")
	flag.DurationVar(&cfg.MaxAttestationAge, "max-attestation-age", 0, "older attestations get use_fresh_attestation (0: no limit)")
	flag.DurationVar(&cfg.ProofWindow, "proof-window", time.Minute, "how old a PoP JWT or DPoP proof may be")
	flag.DurationVar(&cfg.TokenLifetime, "token-lifetime", 5*time.Minute, "how long access tokens are valid")
	var resource resourceFlags
	resource.register()
	redirects := flag.String("redirect-uri", "", "give clients the authorization code grant, by pushed requests, with these redirect URIs: `URI,URI,…`")
	flag.BoolVar(&cfg.RequireReqHash, "require-req-hash", false, "a code is given only to a token request that vouches for the pushed request")
	certFile := flag.String("cert", "", "TLS certificate `FILE` (PEM); without it plain http")
	tlsKeyFile := flag.String("key", "", "TLS key `FILE` (PEM)")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if cfg.Challenges, err = challenges(*challenge, *singleUse, *challengeLifetime); err != nil {
		return err
	}
	if methods[*method] == "" {
		return fmt.Errorf("-method %s: use pop or dpop", *method)
	}
	var redirectURIs []string
	if *redirects != "" {
		redirectURIs = strings.Split(*redirects, ",")
	}
	for id := range strings.SplitSeq(*clients, ",") {
		cfg.Clients = append(cfg.Clients, authserver.Client{
			ID: id, Method: methods[*method], Scopes: strings.Fields(*scopes), RedirectURIs: redirectURIs,
		})
	}
	digest := watch.Digest(trust.watched())
	if !*check {
		trust.await(ctx)
	}
	if err := trust.read(ctx, &cfg); err != nil {
		return err
	}
	if cfg.Resource, err = resource.config(*challengeLifetime); err != nil {
		return err
	}

	if *check {
		if cfg.Issuer == "" {
			cfg.Issuer = "https://as.invalid" // is in no file
		}
		if _, err := authserver.New(cfg); err != nil {
			return err
		}
		fmt.Println("the files are good")
		return nil
	}

	listener, base, err := serve.Listen(*addr, *certFile, *tlsKeyFile)
	if err != nil {
		return err
	}
	defer listener.Close()
	if cfg.Issuer == "" {
		cfg.Issuer = base
	}
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	if cfg.Challenges == nil || cfg.Resource != nil && cfg.Resource.Challenges == nil {
		// What was used before this process is told by its iat, in seconds: from the
		// next one on nothing was.
		if err := nextSecond(ctx); err != nil {
			return err
		}
	}
	server, err := authserver.New(cfg)
	if err != nil {
		return err
	}
	go trust.follow(ctx, digest, server, cfg, cfg.Logger)
	fmt.Printf("authorization server %s\n", cfg.Issuer)
	if server.Resource() != "" {
		fmt.Printf("resource %s\n", server.Resource())
	}
	return serve.Run(ctx, listener, server)
}

// challenges turns the flags into a configuration; nil for none.
func challenges(place string, singleUse bool, lifetime time.Duration) (*authserver.ChallengeConfig, error) {
	c := &authserver.ChallengeConfig{SingleUse: singleUse, Lifetime: lifetime}
	switch place {
	case "endpoint":
		c.Endpoint = true
	case "header":
		c.Responses = true
	case "both":
		c.Endpoint, c.Responses = true, true
	case "error":
	case "none":
		if singleUse {
			return nil, errors.New("-single-use needs challenges")
		}
		return nil, nil
	default:
		return nil, fmt.Errorf("-challenge %s: use endpoint, header, both, error or none", place)
	}
	return c, nil
}

func nextSecond(ctx context.Context) error {
	timer := time.NewTimer(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
