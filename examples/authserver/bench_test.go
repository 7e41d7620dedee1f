// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/authserver"
)

// BenchmarkToken compares token requests of one instance, which always sends the
// same attestation, with those of instances that come for the first time. The two
// take turns, so that whatever else the machine does, it does to both.
func BenchmarkToken(b *testing.B) {
	f := newFixture(b, func(cfg *authserver.Config) {
		cfg.Policy = parsePolicy(b, `{"models": [{"oemid": 32473, "hwmodel": "Gateway X1"}], "require_oemboot": true, "ear_status": ["affirming"]}`)
		cfg.RefreshTokens = false
		cfg.Logger = slog.New(slog.DiscardHandler)
		cfg.ProofWindow = time.Hour
	})
	request := func(attestation string) *http.Request {
		pop := f.pop().pop.compact(b)
		r := httptest.NewRequest(http.MethodPost, issuer+"/token", strings.NewReader(url.Values{"grant_type": {"client_credentials"}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("OAuth-Client-Attestation", attestation)
		r.Header.Set("OAuth-Client-Attestation-PoP", pop)
		return r
	}
	attestation := func() string {
		a := f.pop().attestation
		for claim, value := range device() {
			a.claims[claim] = value
		}
		return a.compact(b) // never the same: ECDSA is randomized
	}
	same := attestation()
	serve := func(r *http.Request) time.Duration {
		w := httptest.NewRecorder()
		start := time.Now()
		f.server.ServeHTTP(w, r)
		took := time.Since(start)
		if w.Code != http.StatusOK {
			b.Fatalf("%d %s %s", w.Code, w.Body, f.log.String())
		}
		return took
	}
	serve(request(same))
	var known, unknown time.Duration
	for b.Loop() {
		known += serve(request(same))
		unknown += serve(request(attestation()))
	}
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) }
	b.ReportMetric(each(known), "known-µs")
	b.ReportMetric(each(unknown), "unknown-µs")
	b.ReportMetric(float64(unknown)/float64(known), "ratio")
}
