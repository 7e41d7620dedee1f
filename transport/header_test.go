// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/transport"
)

// TestC8HeaderSize: warned about from 8 kB on, refused from 16 kB on, before
// anything is sent.
func TestC8HeaderSize(t *testing.T) {
	for _, test := range []struct {
		size  int
		warns bool
		fails bool
	}{{5 << 10, false, false}, {9 << 10, true, false}, {15 << 10, true, false}, {16 << 10, false, true}} {
		t.Run(fmt.Sprint(test.size), func(t *testing.T) {
			var log bytes.Buffer
			var got *http.Request
			f := newFixture(t, policy{NoEndpoint: true}, func(c *transport.Config) {
				c.Attestations = staticSource(strings.Repeat("a", test.size))
				c.Base = recording(&got)
				c.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			_, err := f.RoundTrip(f.request(t.Context()))
			if errors.Is(err, transport.ErrHeaderTooLarge) != test.fails || (got == nil) != test.fails {
				t.Fatalf("error %v, sent: %v", err, got != nil)
			}
			if warned := strings.Contains(log.String(), "level=WARN"); warned != test.warns {
				t.Errorf("log %q", log.String())
			}
			if test.fails {
				for _, part := range []string{"OAuth-Client-Attestation", fmt.Sprint(16 << 10)} {
					if !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(part)) {
						t.Errorf("error %q does not name %s", err, part)
					}
				}
			}
		})
	}
}

// TestC8HeaderSizeCountsNames: a field takes its name, a colon, a space and a line's end
// as well, each time it is there.
func TestC8HeaderSizeCountsNames(t *testing.T) {
	for name, test := range map[string]struct {
		fields, values, nameSize int
		fails                    bool
	}{
		"names":                   {350, 1, 50, true},  // 350 * 54
		"fields that take little": {250, 1, 50, false}, // 250 * 54
		"one name, many values":   {1, 350, 50, true},
		"separators":              {1, 3300, 1, true},  // 3300 * 5
		"fewer of them":           {1, 3000, 1, false}, // 3000 * 5
	} {
		t.Run(name, func(t *testing.T) {
			var got *http.Request
			f := newFixture(t, policy{NoEndpoint: true}, func(c *transport.Config) { c.Base = recording(&got) })
			req := f.request(t.Context())
			for i := range test.fields {
				field := "X"
				if test.nameSize > 1 {
					field = fmt.Sprintf("X%0*d", test.nameSize-1, i)
				}
				req.Header[field] = make([]string, test.values)
			}
			if _, err := f.RoundTrip(req); errors.Is(err, transport.ErrHeaderTooLarge) != test.fails || (got == nil) != test.fails {
				t.Errorf("error %v, sent: %v", err, got != nil)
			}
		})
	}
}
