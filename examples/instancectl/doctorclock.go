// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/http"
	"time"

	"github.com/instancekey/instancekey/internal/release"
)

const (
	// exact is what a Date in whole seconds and a network make of a right clock.
	exact = 5 * time.Second

	// corrected is how much package client corrects by itself.
	corrected = 7 * 24 * time.Hour

	issuerTimeout = 10 * time.Second

	adviceClock = "set the clock, by NTP or a real-time clock, or let the program use a client.Timekeeper"
)

func (d *doctor) examineClock() {
	const check = "system clock"
	now := d.now().UTC()
	if now.Before(release.Since) {
		d.fail(check, adviceClock, "was never set: it says %s, when this program did not exist, and no server's certificate is valid", now.Format(time.RFC3339))
		return
	}
	d.ok(check, "says %s", now.Format(time.RFC3339))
}

// examineIssuerClock compares the clock with the authorization server's.
func (d *doctor) examineIssuerClock(ctx context.Context, network http.RoundTripper) {
	const check = "issuer's clock"
	ctx, cancel := context.WithTimeout(ctx, issuerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, d.flags.issuer, nil)
	if err != nil {
		d.fail(check, "correct -issuer", "%v", err)
		return
	}
	before := d.now()
	resp, err := network.RoundTrip(req) // follows no redirect
	after := d.now()
	if err != nil {
		d.fail(check, reachAdvice(err), "the server cannot be asked: %v", err)
		return
	}
	resp.Body.Close()
	date, err := http.ParseTime(resp.Header.Get("Date"))
	switch {
	case resp.TLS == nil:
		d.warn(check, "use an https issuer", "was not compared: without TLS anybody could have said the time")
		return
	case err != nil || resp.Header.Get("Age") != "":
		d.warn(check, "compare it by hand", "was not compared: the server does not say what time it is")
		return
	}
	offset := date.Sub(before.Add(after.Sub(before) / 2)).Round(time.Second)
	switch off := offset.Abs(); {
	case off > corrected:
		d.fail(check, adviceClock, "is %v off this device's, more than clients correct for", offset)
	case off > exact:
		d.warn(check, adviceClock+"; until then clients correct for it", "is %v off this device's", offset)
	default:
		d.ok(check, "is this device's, to %v", exact)
	}
}
