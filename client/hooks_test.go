// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// A reentrant hook calls Token, HTTPClient and perhaps Close of the Client that calls it.
type reentrant struct {
	client *client.Client
	depth  atomic.Int64
	calls  atomic.Int64
	closes bool
	own    bool // with the context that the hook has, and not with one of its own
	waits  bool // as long as it takes
}

func (h *reentrant) call(ctx context.Context) {
	if h.client == nil {
		return
	}
	defer h.depth.Add(-1)
	if h.depth.Add(1) > 3 { // what it calls, calls it again
		return
	}
	h.calls.Add(1)
	if !h.own {
		ctx = context.Background()
	}
	if !h.waits {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
	}
	_, _ = h.client.Token(ctx, "hook")
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "https://logs.example.com/", strings.NewReader("a=b"))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if resp, err := h.client.HTTPClient().Do(req); err == nil {
		resp.Body.Close()
	}
	if h.closes {
		h.client.Close()
	}
}

type hookHandler struct {
	slog.Handler
	hook *reentrant
}

func (h hookHandler) Handle(ctx context.Context, _ slog.Record) error {
	h.hook.call(ctx)
	return nil
}
func (h hookHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h hookHandler) WithGroup(string) slog.Handler      { return h }

type hookCache struct{ hook *reentrant }

func (c hookCache) Get(ctx context.Context, _ string) ([]byte, error) {
	c.hook.call(ctx)
	return nil, client.ErrCacheMiss
}
func (c hookCache) Put(ctx context.Context, _ string, _ []byte) error { c.hook.call(ctx); return nil }
func (c hookCache) Delete(ctx context.Context, _ string) error        { c.hook.call(ctx); return nil }

type hookBase struct {
	http.RoundTripper
	hook *reentrant
}

func (b hookBase) RoundTrip(req *http.Request) (*http.Response, error) {
	b.hook.call(req.Context())
	return b.RoundTripper.RoundTrip(req)
}

// TestHooksMayUseTheirClient: nothing is locked and nothing is waited for for good
// while a program's own code is called, whatever that calls in its turn.
func TestHooksMayUseTheirClient(t *testing.T) {
	for name, install := range map[string]func(*client.Config, *reentrant){
		"logger": func(cfg *client.Config, h *reentrant) {
			cfg.Logger = slog.New(hookHandler{slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}), h})
		},
		"trace": func(cfg *client.Config, h *reentrant) {
			event := func(ctx context.Context, _ transport.TraceEvent) { h.call(ctx) }
			cfg.Trace = &client.Trace{
				Trace: transport.Trace{Challenge: event, Signature: event, Request: event}, Renewal: event, Evidence: event,
				Key: func(ctx context.Context, _ keystore.Key, _ transport.TraceEvent) { h.call(ctx) },
			}
		},
		"clock": func(cfg *client.Config, h *reentrant) {
			now := cfg.Clock
			cfg.Clock = func() time.Time { h.call(context.Background()); return now() }
		},
		"attester": func(cfg *client.Config, h *reentrant) {
			attester := cfg.Attester.(*testAttester)
			attest := attester.attest
			attester.attest = func(ctx context.Context, req client.AttestRequest, n int) (string, error) {
				h.call(ctx)
				return attest(ctx, req, n)
			}
		},
		"cache": func(cfg *client.Config, h *reentrant) { cfg.Cache = hookCache{h} },
		"base":  func(cfg *client.Config, h *reentrant) { cfg.Base = hookBase{cfg.Base, h} },
		"Claims": func(cfg *client.Config, h *reentrant) {
			cfg.Claims = func(req *http.Request) (map[string]any, error) { h.call(req.Context()); return nil, nil }
		},
	} {
		for _, own := range []bool{false, true} {
			for _, closes := range []bool{false, true} {
				t.Run(name+map[bool]string{true: ", its context"}[own]+map[bool]string{true: ", Close"}[closes], func(t *testing.T) {
					inBubble(t, func(t *testing.T, r *rig) {
						// What these tell of is over when they are called.
						afterwards := name == "logger" || name == "trace"
						h := &reentrant{own: own, closes: closes, waits: afterwards}
						c := r.client(t, func(cfg *client.Config) { install(cfg, h) })
						h.client = c
						finished := make(chan error, 3)
						start := time.Now()
						for range 3 {
							go func() { finished <- grant(t.Context(), c) }()
						}
						for range 3 {
							select {
							case err := <-finished:
								if err != nil && !closes {
									t.Error(err)
								}
							case <-time.After(2 * time.Minute):
								t.Fatal("the Client hangs")
							}
						}
						if took := time.Since(start); took > 45*time.Second || afterwards && took > time.Second {
							t.Errorf("it took %s", took)
						}
						c.Close()
						synctest.Wait()
						if h.calls.Load() == 0 {
							t.Error("the hook was not called")
						}
					})
				})
			}
		}
	}
}
