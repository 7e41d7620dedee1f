// SPDX-License-Identifier: Apache-2.0

// Package reference runs the reference Client Attester and the reference
// authorization server inside another program, on loopback addresses.
package reference

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/internal/serve"
)

// Config is that of both servers. What they need of each other is filled in:
// Attester.URL and Key, AuthServer.Issuer, and the attester's key among
// AuthServer.AttesterKeys.
type Config struct {
	Attester   attester.Config
	AuthServer authserver.Config
}

// Servers are two running servers.
type Servers struct {
	AttesterURL string
	Issuer      string           // of the authorization server
	Attester    *attester.Server // to provision attestations with

	requests atomic.Int64
	stop     context.CancelFunc
	running  sync.WaitGroup
	mu       sync.Mutex
	err      error
}

// Start starts both servers. They run until Close.
func Start(cfg Config) (_ *Servers, err error) {
	ctx, stop := context.WithCancel(context.Background())
	s := &Servers{stop: stop}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	var attesterListener, authListener net.Listener
	if attesterListener, s.AttesterURL, err = serve.Listen("127.0.0.1:0", "", ""); err != nil {
		return nil, err
	}
	if authListener, s.Issuer, err = serve.Listen("127.0.0.1:0", "", ""); err != nil {
		attesterListener.Close()
		return nil, err
	}
	cfg.Attester.URL = s.AttesterURL
	cfg.Attester.Key = jose.JSONWebKey{Key: key, KeyID: "reference-attester", Algorithm: string(jose.ES256), Use: "sig"}
	cfg.AuthServer.Issuer = s.Issuer
	handler, err := s.handlers(cfg)
	if err != nil {
		attesterListener.Close()
		authListener.Close()
		return nil, err
	}
	s.run(ctx, attesterListener, s.Attester)
	s.run(ctx, authListener, handler)
	return s, nil
}

func (s *Servers) handlers(cfg Config) (authServer http.Handler, err error) {
	if s.Attester, err = attester.New(cfg.Attester); err != nil {
		return nil, err
	}
	trusted := s.Attester.JWKS().Keys
	cfg.AuthServer.AttesterKeys.Keys = append(trusted, cfg.AuthServer.AttesterKeys.Keys...)
	server, err := authserver.New(cfg.AuthServer)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		server.ServeHTTP(w, r)
	}), nil
}

func (s *Servers) run(ctx context.Context, l net.Listener, h http.Handler) {
	s.running.Go(func() {
		if err := serve.Run(ctx, l, h); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.err = errors.Join(s.err, err)
		}
	})
}

// Requests returns how many requests the authorization server has received.
func (s *Servers) Requests() int { return int(s.requests.Load()) }

// Close stops the servers and returns what went wrong while they ran.
func (s *Servers) Close() error {
	s.stop()
	s.running.Wait()
	return s.err
}
