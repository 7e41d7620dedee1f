// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// handlerFunc is a log handler that is told the messages.
type handlerFunc func(message string)

func (h handlerFunc) Enabled(context.Context, slog.Level) bool { return true }
func (h handlerFunc) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h handlerFunc) WithGroup(string) slog.Handler            { return h }
func (h handlerFunc) Handle(_ context.Context, r slog.Record) error {
	h(r.Message)
	return nil
}

// TestHandlerGetsATokenOfItsOwnClient, while a grant waits for the work that the record
// comes from.
func TestHandlerGetsATokenOfItsOwnClient(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.edit(transporttest.Metadata, func(m map[string]any) {
			m["pushed_authorization_request_endpoint"] = "https://elsewhere.example/par" // which is logged
		})
		r.Set(func(p *transporttest.Policy) {
			p.Before = func(request transporttest.Request) {
				if request.Endpoint == transporttest.Metadata {
					time.Sleep(time.Second)
				}
			}
		})
		var c *client.Client
		records := 0
		c = r.client(t, func(cfg *client.Config) {
			cfg.Logger = slog.New(handlerFunc(func(message string) {
				if !strings.Contains(message, "other origins") {
					return
				}
				records++
				if _, err := c.Token(context.Background()); err != nil {
					t.Error(err)
				}
			}))
		})
		start := time.Now()
		go c.Metadata(t.Context())
		synctest.Wait()
		if _, err := c.Token(t.Context()); err != nil || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		synctest.Wait()
		if records != 1 {
			t.Errorf("%d records", records)
		}
	})
}
