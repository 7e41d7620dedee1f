// SPDX-License-Identifier: Apache-2.0

// Command hostileserver runs the authorization server of package transporttest,
// for the tests of clients in any language. Like that, it is strict in what it
// verifies and hostile in how it answers; without flags it only refuses a good
// challenge now and then.
//
//	go run github.com/instancekey/instancekey/transport/transporttest/hostileserver -kind single-use -offer always
//
// It prints one line, a JSON object: "issuer", "client_id", "seed", and
// "control", the URL under which a test does what no client may:
//
//	POST /attestation   answers a Client Attestation for the public JWK in the body
//	GET  /requests      answers what has come, and what became of it, as JSON
//	POST /rotate        makes all challenges bad that were given so far
//	POST /rotate-nonce  makes the DPoP nonce bad
//	POST /deny          wants a fresh attestation in place of the one in the body
//
// Then it serves until it is interrupted. Its exit status is 1 if a credential
// followed a redirect to the place where none may arrive.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"os/signal"
	"syscall"

	"github.com/instancekey/instancekey/transport/transporttest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "hostileserver:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg := transporttest.Config{}
	flags := flag.NewFlagSet("hostileserver", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:0", "listen on `host:port`; port 0 takes a free one")
	flags.StringVar(&cfg.ClientID, "client-id", "client", "the only client's `ID`")
	flags.Uint64Var(&cfg.Seed, "seed", 0, "decides all that is random; 0 draws a `number`")
	policyFlags(flags, &cfg.Policy)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	for cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	var err error
	if cfg.Listener, err = net.Listen("tcp", *addr); err != nil {
		return err
	}

	judge := &reporter{to: stderr}
	defer judge.cleanup()
	server := transporttest.New(judge, cfg)
	control := httptest.NewServer(controls(server))
	defer control.Close()
	err = json.NewEncoder(stdout).Encode(map[string]any{
		"issuer": server.Issuer, "client_id": server.ClientID, "seed": cfg.Seed, "control": control.URL,
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	if n := judge.count(); n > 0 {
		return fmt.Errorf("%d faults, see above", n)
	}
	return nil
}

// policyFlags has a flag for each field of a Policy that is no function.
func policyFlags(flags *flag.FlagSet, p *transporttest.Policy) {
	choice(flags, "kind", &p.Kind, "what becomes of challenges", []string{"reusable", "single-use", "none"})
	choice(flags, "offer", &p.Offer, "which responses carry a challenge", []string{"errors", "always", "never"})
	flags.BoolVar(&p.NoEndpoint, "no-endpoint", false, "have no challenge endpoint")
	flags.IntVar(&p.ChallengeBytes, "challenge-bytes", 0, "length of challenges in `bytes`; 0 means 22")
	flags.BoolVar(&p.NoRandomRefusals, "no-random-refusals", false, "refuse no good challenge at random")
	flags.IntVar(&p.RefuseEvery, "refuse-every", 0, "refuse every `N`th good challenge")
	flags.BoolVar(&p.RefuseAll, "refuse-all", false, "refuse every challenge")
	flags.BoolVar(&p.RepeatRefused, "repeat-refused", false, "offer the challenge that is just being refused")
	flags.DurationVar(&p.Window, "window", 0, "how far iat may be from now; 0 means 15s")
	flags.BoolVar(&p.UnknownClient, "unknown-client", false, "answer invalid_client to what is in order")
	flags.BoolVar(&p.Combined, "combined", false, "want a DPoP proof in place of the PoP JWT")
	flags.BoolVar(&p.Nonces, "nonces", false, "want a nonce in every DPoP proof")
	flags.IntVar(&p.Status, "status", 0, "HTTP `status` of errors; 0 means the draft's")
	choice(flags, "body", &p.Body, "form of error bodies", []string{"plain", "huge", "gzip", "duplicate"})
	flags.StringVar(&p.ContentType, "content-type", "", "`type` of error bodies")
	flags.IntVar(&p.Redirect, "redirect", 0, "answer every request with this `status`, to a foreign origin")
	flags.BoolVar(&p.Cut, "cut", false, "close each connection without an answer")
	flags.BoolVar(&p.Early, "early", false, "answer without reading the request's body")
}

// choice is a flag for a number that has names.
func choice[T ~int](flags *flag.FlagSet, name string, to *T, usage string, names []string) {
	flags.Func(name, fmt.Sprintf("%s, one of `%q` (default %s)", usage, names, names[0]), func(value string) error {
		for i, n := range names {
			if n == value {
				*to = T(i)
				return nil
			}
		}
		return fmt.Errorf("use one of %q", names)
	})
}
