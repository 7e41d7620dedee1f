// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/instancekey/instancekey/internal/release"
)

func TestDoctorClock(t *testing.T) {
	for now, want := range map[time.Time]status{
		time.Unix(0, 0):                 statusFail,
		release.Since.Add(-time.Second): statusFail,
		release.Since:                   statusOK,
		release.Since.AddDate(34, 0, 0): statusOK,
	} {
		d, found := newDoctor(t, doctorFlags{})
		d.now = func() time.Time { return now }
		d.examineClock()
		found().want("system clock", want, now.UTC().Format(time.RFC3339))
		if d.failed != (want == statusFail) {
			t.Errorf("%v: failed: %t", now, d.failed)
		}
	}
}

// issuer is a server with a clock of its own.
type issuer struct {
	*httptest.Server
	caFile   string
	requests []*http.Request
}

func newIssuer(t *testing.T, header func(http.Header)) *issuer {
	t.Helper()
	s := &issuer{}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests = append(s.requests, r)
		header(w.Header())
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusFound)
	}))
	t.Cleanup(s.Close)
	s.caFile = writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	return s
}

func TestDoctorIssuerClock(t *testing.T) {
	now := time.Date(2026, time.December, 1, 12, 0, 0, 0, time.UTC)
	date := func(offset time.Duration) func(http.Header) {
		return func(h http.Header) { h.Set("Date", now.Add(offset).Format(http.TimeFormat)) }
	}
	for name, tt := range map[string]struct {
		header func(http.Header)
		status status
		word   string
	}{
		"right":            {date(0), statusOK, "this device's"},
		"nearly":           {date(-5 * time.Second), statusOK, "this device's"},
		"an hour ahead":    {date(time.Hour), statusWarn, "is 1h0m0s off"},
		"a week behind":    {date(-7 * 24 * time.Hour), statusWarn, "is -168h0m0s off"},
		"beyond a week":    {date(7*24*time.Hour + time.Second), statusFail, "more than clients correct for"},
		"no date":          {func(h http.Header) { h["Date"] = nil }, statusWarn, "does not say"},
		"garbage":          {func(h http.Header) { h.Set("Date", "today") }, statusWarn, "does not say"},
		"out of a cache":   {func(h http.Header) { date(0)(h); h.Set("Age", "0") }, statusWarn, "does not say"},
		"not far, in time": {date(6 * time.Second), statusWarn, "is 6s off"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newIssuer(t, tt.header)
			network, err := newNetwork(s.caFile)
			if err != nil {
				t.Fatal(err)
			}
			defer network.CloseIdleConnections()
			d, found := newDoctor(t, doctorFlags{clientFlags: clientFlags{issuer: s.URL + "/tenant"}})
			d.now = func() time.Time { return now }
			d.examineIssuerClock(t.Context(), network)
			found().want("issuer's clock", tt.status, tt.word)
			if len(s.requests) != 1 || s.requests[0].Method != http.MethodHead || s.requests[0].URL.Path != "/tenant" {
				t.Fatalf("requests: %+v", s.requests)
			}
			for name := range s.requests[0].Header {
				if name != "User-Agent" && name != "Accept-Encoding" {
					t.Errorf("the request has a header %s", name)
				}
			}
		})
	}
}

func TestDoctorIssuerUnreachable(t *testing.T) {
	s := newIssuer(t, func(http.Header) {})
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for name, tt := range map[string]struct {
		issuer, caFile string
		status         status
		word           string
	}{
		"unknown CA": {s.URL, "", statusFail, "-ca"},
		"down":       {closed.URL, "", statusFail, "network"},
		"no TLS":     {plain.URL, "", statusWarn, "https"},
	} {
		t.Run(name, func(t *testing.T) {
			d := examined(t, "-store", noTPM(t), "-issuer", tt.issuer, "-ca", tt.caFile)
			d.want("issuer's clock", tt.status, tt.word)
		})
	}
	if len(s.requests) != 0 {
		t.Errorf("%d requests", len(s.requests))
	}
	t.Run("not valid yet", func(t *testing.T) {
		network, err := newNetwork(s.caFile)
		if err != nil {
			t.Fatal(err)
		}
		defer network.CloseIdleConnections()
		early := func() time.Time { return time.Unix(-1e9, 0) }
		network.TLSClientConfig.Time = early
		d, found := newDoctor(t, doctorFlags{clientFlags: clientFlags{issuer: s.URL}})
		d.now = early
		d.examineIssuerClock(t.Context(), network)
		found().want("issuer's clock", statusFail, "set the clock")
	})
}
