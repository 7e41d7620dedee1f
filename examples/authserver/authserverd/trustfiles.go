// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/internal/watch"
	"github.com/instancekey/instancekey/internal/endpoint"
)

// refetch is how often a JWK Set is fetched from its URL.
const refetch = time.Minute

// trustFiles say which attesters are trusted, and what devices must be like.
type trustFiles struct{ jwks, roots, policy string }

func (f *trustFiles) register(fs *flag.FlagSet) {
	fs.StringVar(&f.jwks, "attester-jwks", "", "`URL or file` of the trusted attester's JWK Set; read again when it changes")
	fs.StringVar(&f.roots, "attester-roots", "", "PEM `FILE` of trust anchors for attestations with x5c; read again when it changes")
	fs.StringVar(&f.policy, "policy", "", "decide by the rules about devices in `FILE` (JSON); read again when it changes")
}

func (f *trustFiles) isURL() bool { return strings.Contains(f.jwks, "://") }

// watched are the files.
func (f *trustFiles) watched() []string {
	if f.isURL() {
		return []string{f.roots, f.policy}
	}
	return []string{f.jwks, f.roots, f.policy}
}

// read fills in what a configuration trusts, from each file for itself. Of what cannot
// be read it leaves what is there.
func (f *trustFiles) read(ctx context.Context, cfg *authserver.Config) error {
	var wrong []error
	if f.jwks != "" {
		if keys, err := readJWKS(ctx, f.jwks); err == nil {
			cfg.AttesterKeys = keys
		} else {
			wrong = append(wrong, fmt.Errorf("-attester-jwks: %w", err))
		}
	}
	if f.roots != "" {
		if pool, err := readRoots(f.roots); err == nil {
			cfg.AttesterRoots = pool
		} else {
			wrong = append(wrong, fmt.Errorf("-attester-roots: %w", err))
		}
	}
	if f.policy != "" {
		if policy, err := authserver.LoadPolicy(f.policy); err == nil {
			cfg.Policy = policy
		} else {
			wrong = append(wrong, fmt.Errorf("-policy: %w", err))
		}
	}
	if f.jwks == "" && f.roots == "" {
		wrong = append(wrong, errors.New("no attester is trusted: give -attester-jwks or -attester-roots"))
	}
	return errors.Join(wrong...)
}

// await waits half a minute for an attester that is being started beside this program.
func (f *trustFiles) await(ctx context.Context) {
	if !f.isURL() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for said := false; ; said = true {
		_, err := readSource(ctx, f.jwks)
		if !errors.As(err, new(*net.OpError)) {
			return // it answers, or never will
		}
		if !said {
			fmt.Fprintf(os.Stderr, "authserverd: waiting for %s: %v\n", f.jwks, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func readRoots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no PEM certificates", file)
	}
	return pool, nil
}

// follow reads the files again when they change, and a JWK Set at a URL every
// minute, until ctx ends. digest is that of the files before they were read, known
// what the server trusts now. What cannot be used changes nothing.
func (f *trustFiles) follow(ctx context.Context, digest string, server *authserver.Server, known authserver.Config, log *slog.Logger) {
	again := make(chan struct{})
	go watch.Files(ctx, digest, f.watched(), func() {
		select {
		case again <- struct{}{}:
		case <-ctx.Done():
		}
	})
	var fetch <-chan time.Time
	if f.isURL() {
		ticker := time.NewTicker(refetch)
		defer ticker.Stop()
		fetch = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-fetch:
		}
		known = f.update(ctx, server, known, log)
	}
}

// update returns what the server trusts afterwards. Of a file that is wrong, that of
// before stays in force; the others take effect.
func (f *trustFiles) update(ctx context.Context, server *authserver.Server, known authserver.Config, log *slog.Logger) authserver.Config {
	now := known
	if err := f.read(ctx, &now); ctx.Err() != nil {
		return known
	} else if err != nil {
		log.Error("whom to trust cannot be read again: what was read of that before stays in force", slog.String("reason", err.Error()))
	}
	if !reflect.DeepEqual(now.AttesterKeys, known.AttesterKeys) || !equalPools(now.AttesterRoots, known.AttesterRoots) {
		if err := server.SetAttesters(now.AttesterKeys, now.AttesterRoots); err != nil {
			now.AttesterKeys, now.AttesterRoots = known.AttesterKeys, known.AttesterRoots
			log.Error("trusted attesters cannot be used: those of before stay in force", slog.String("reason", err.Error()))
		} else {
			log.Info("trusted attesters have changed, and are in force")
		}
	}
	if !reflect.DeepEqual(now.Policy, known.Policy) {
		server.SetPolicy(now.Policy)
		log.Info("policy has changed, and is in force")
	}
	return now
}

func equalPools(a, b *x509.CertPool) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(b)
}

func readJWKS(ctx context.Context, source string) (jose.JSONWebKeySet, error) {
	var keys jose.JSONWebKeySet
	data, err := readSource(ctx, source)
	if err != nil {
		return keys, err
	}
	if err := json.Unmarshal(data, &keys); err != nil {
		return keys, fmt.Errorf("%s: %w", source, err)
	}
	if len(keys.Keys) == 0 {
		return keys, fmt.Errorf("%s is no JWK Set, or an empty one", source)
	}
	return keys, nil
}

func readSource(ctx context.Context, source string) ([]byte, error) {
	if !strings.Contains(source, "://") {
		return os.ReadFile(source)
	}
	if _, err := endpoint.ParseIdentifier(source); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %s", source, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, 1<<20))
}
