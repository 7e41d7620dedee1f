// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/release"
)

// TestEveryStartDate (D3 to D6): a device gets its token whatever its clock shows when it
// starts, from 1970 to three years ahead, with the first request for it, at a server whose
// certificate is younger than the program; and everything goes by the corrected clock
// then: proofs, attestations, and the certificate of a resource.
func TestEveryStartDate(t *testing.T) {
	for name, chain := range map[string]certificates{"public": public, "fresh": fresh} {
		for told, edits := range map[string][]func(*client.TimekeeperConfig){
			"": nil, ", not set": {said(false)}, ", no build time": {func(cfg *client.TimekeeperConfig) { cfg.Built = time.Time{} }},
		} {
			t.Run(name+told, func(t *testing.T) {
				t.Parallel()
				r := newTimeRig(t, chain)
				now := r.clock.now()
				dates := []time.Time{
					now, now.Add(-20 * day), now.Add(30 * day), now.Add(-7 * day), now.Add(7*day + time.Minute), now.Add(time.Minute),
					release.Since, release.Since.Add(-time.Second), release.Since.AddDate(0, -6, 0),
				}
				step := 397 * day
				if name+told == "fresh" && !raceDetector {
					step = 61 * day
				}
				for date := time.Unix(0, 0); date.Before(now.AddDate(3, 0, 0)); date = date.Add(step) {
					dates = append(dates, date)
				}
				dates = append(dates, now.AddDate(3, 0, 0))
				for _, date := range dates {
					keeper := r.keeper(date.Sub(now), edits...)
					c := r.client(t, keeper)
					before := r.total()
					if _, err := c.Token(t.Context()); err != nil {
						t.Fatalf("start on %s: %v", date.Format(time.DateTime), err)
					}
					if n := r.total() - before; n != 3 {
						t.Fatalf("start on %s: %d requests, want 3", date.Format(time.DateTime), n)
					}
					if off := keeper.Now().Sub(r.clock.now()); off.Abs() > 5*time.Second {
						t.Fatalf("start on %s: still %v off", date.Format(time.DateTime), off)
					}
					c.Close()
					c.HTTPClient().CloseIdleConnections()
				}
			})
		}
	}
}

// TestClockGoesWrongMeanwhile: a clock that was right, or corrected, and then shows
// something else, does not lock out a program that runs.
func TestClockGoesWrongMeanwhile(t *testing.T) {
	for name, offs := range map[string][]time.Duration{
		"right, then 1970":              {0, -58 * 365 * day},
		"right, then years ahead":       {0, 3 * 365 * day},
		"1970, then right":              {-58 * 365 * day, 0},
		"1970, then right but a minute": {-58 * 365 * day, time.Minute},
		"1970, then a month ahead":      {-58 * 365 * day, 30 * day},
		"ahead, 1970, behind, right":    {3 * 365 * day, -58 * 365 * day, -20 * day, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTimeRig(t, fresh)
			var off time.Duration
			keeper := r.keeper(0, func(cfg *client.TimekeeperConfig) {
				off = offs[0]
				cfg.Clock = func() time.Time { return r.clock.now().Add(off) }
			})
			c := r.client(t, keeper)
			for _, off = range offs {
				r.clock.advance(time.Hour) // metadata and token are too old
				c.HTTPClient().CloseIdleConnections()
				_ = grant(t.Context(), c) // may be refused, and teach
				if err := grant(t.Context(), c); err != nil {
					t.Errorf("off by %v: %v", off, err)
				}
			}
		})
	}
}

// TestExpiredCertificates: how long after its end one is accepted is what SECURITY.md
// says, and no longer.
func TestExpiredCertificates(t *testing.T) {
	// A certificate that has ended 30 days ago.
	ended := certificates{[2]time.Duration{3000 * day, 3000 * day}, [2]time.Duration{600 * day, 600 * day}, [2]time.Duration{120 * day, -30 * day}}
	const never = -58 * 365 * day
	for name, test := range map[string]struct {
		off    time.Duration // the device's clock
		isSet  bool
		built  time.Duration
		kept   time.Duration // zero: nothing
		heard  bool          // from another issuer, before
		reason string        // "": accepted
	}{
		"never set, built before its end":     {off: never, built: -60 * day},
		"behind, built before its end":        {off: -40 * day, built: -60 * day},
		"right, and nobody says that":         {off: 0, built: -60 * day},
		"heard before its end":                {off: never, built: -60 * day, kept: -31 * day},
		"built after its end":                 {off: never, built: -20 * day, reason: "built"},
		"built after its end, a clock before": {off: -40 * day, built: -20 * day, reason: "built"},
		"heard after its end":                 {off: never, built: -60 * day, kept: -29 * day, reason: "kept in "},
		"heard after its end, a clock before": {off: -40 * day, built: -60 * day, kept: -29 * day, reason: "kept in "},
		"set":                                 {off: 0, isSet: true, built: -60 * day, reason: "says is set"},
		"set, and heard before its end":       {off: 0, isSet: true, built: -60 * day, kept: -31 * day, reason: "says is set"},
		"heard in this run":                   {off: never, built: -60 * day, heard: true, reason: "the issuer has said"},
		"heard in this run, a clock before":   {off: -40 * day, built: -60 * day, heard: true, reason: "the issuer has said"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTimeRig(t, public)
			file := filepath.Join(t.TempDir(), "time")
			if test.kept != 0 {
				text := r.clock.now().Add(test.kept).UTC().Format(time.RFC3339)
				if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			keeper := r.keeper(test.off, said(test.isSet), func(cfg *client.TimekeeperConfig) {
				cfg.Built, cfg.File = r.clock.now().Add(test.built), file
			})
			if test.heard {
				if err := grant(t.Context(), r.client(t, keeper)); err != nil {
					t.Fatal(err)
				}
			}
			reached := 0
			server, roots := ended.serve(t, r.clock.now(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached++ }))
			base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
			to := &http.Client{Transport: keeper.RoundTripper(base)}
			defer to.CloseIdleConnections()
			for range 2 { // the second time is as the first
				resp, err := to.Post(server.URL, "text/plain", strings.NewReader("secret"))
				if err == nil {
					resp.Body.Close()
				}
				var invalid x509.CertificateInvalidError
				switch {
				case test.reason == "":
					if err != nil {
						t.Errorf("refused: %v", err)
					}
				case !errors.As(err, &invalid) || invalid.Reason != x509.Expired || !strings.Contains(err.Error(), test.reason):
					t.Errorf("error %v, want that it has expired, %q", err, test.reason)
				}
			}
			if want := map[bool]int{true: 2}[test.reason == ""]; reached != want {
				t.Errorf("the server was reached %d times, want %d", reached, want)
			}
		})
	}
}

// TestWrongCertificates: another time makes no certificate good that is wrong otherwise.
func TestWrongCertificates(t *testing.T) {
	for name, off := range map[string]time.Duration{"right": 0, "1970": -58 * 365 * day, "ahead": 3 * 365 * day} {
		t.Run(name, func(t *testing.T) {
			r := newTimeRig(t, public)
			keeper := r.keeper(off)
			reached := 0
			server, roots := public.serve(t, r.clock.now(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached++ }))
			for _, wrong := range []struct {
				roots *x509.CertPool
				host  string
			}{{r.roots, "127.0.0.1"}, {roots, "localhost"}, {x509.NewCertPool(), "127.0.0.1"}} {
				base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: wrong.roots}, ForceAttemptHTTP2: true}
				to := &http.Client{Transport: keeper.RoundTripper(base)}
				resp, err := to.Get(strings.Replace(server.URL, "127.0.0.1", wrong.host, 1))
				if err == nil {
					resp.Body.Close()
					t.Errorf("%s: accepted", wrong.host)
				}
				to.CloseIdleConnections()
			}
			if reached != 0 {
				t.Errorf("the server was reached %d times", reached)
			}
		})
	}
}

// TestServerLiesAboutTheTime: one whose certificate has ended by what it says is not
// believed, and a lie within that is over with the lie, and after a restart.
func TestServerLiesAboutTheTime(t *testing.T) {
	for name, test := range map[string]struct {
		off, lie time.Duration
		believed bool
	}{
		"years, to a clock never set": {-58 * 365 * day, 3 * 365 * day, false},
		"years, to a right clock":     {0, 3 * 365 * day, false},
		"before the build":            {-58 * 365 * day, -400 * day, false},
		"50 days, clock never set":    {-58 * 365 * day, 50 * day, true},
		"50 days, to a right clock":   {0, 50 * day, true},
		"20 days back":                {-58 * 365 * day, -20 * day, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTimeRig(t, public)
			r.Attester.Lifetime = 4 * 365 * day
			file := filepath.Join(t.TempDir(), "time")
			var lie time.Duration
			var keeper *client.Timekeeper
			start := func() *client.Client {
				keeper = r.keeper(test.off, func(cfg *client.TimekeeperConfig) { cfg.File = file })
				return r.client(t, keeper, func(cfg *client.Config) {
					cfg.Base = dated{r.network(t, keeper).(dated).RoundTripper, func() time.Time { return r.clock.now().Add(lie) }, 0, ""}
				})
			}
			c := start()
			lie = test.lie
			_ = grant(t.Context(), c)
			if off := keeper.Now().Sub(r.clock.now()); ((off - test.lie).Abs() < time.Minute) != test.believed {
				t.Errorf("the device believes that it is %v from now", off)
			}
			lie = 0
			for range 2 {
				c.HTTPClient().CloseIdleConnections()
				_ = grant(t.Context(), c)
			}
			if err := grant(t.Context(), c); err != nil {
				t.Errorf("after the lie: %v", err)
			}
			if err := grant(t.Context(), start()); err != nil {
				t.Errorf("after a restart: %v", err)
			}
		})
	}
}
