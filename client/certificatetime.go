// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/instancekey/instancekey/internal/redial"
)

// RoundTripper returns base, made to verify the certificates of servers at a time that
// does not lock the device out. It verifies as crypto/tls does, at the time that Now
// shows. If a certificate is not valid then, it verifies at the earliest time that it may
// be. That is when the certificates begin, or a time that is certainly past, whichever is
// later (see TimekeeperConfig.IsSet and SECURITY.md). It is for Config.Base, for
// HTTPAttester.Client, and for whatever else the program calls.
//
// base is copied, and its TLSClientConfig.Time replaced. Nil means http.DefaultTransport.
// base must not have a DialTLS or DialTLSContext. A request whose certificate fails takes a
// second connection; one whose body cannot be had again (http.Request.GetBody) is not
// repeated. Errors are base's; that of a certificate that has expired for certain says how
// that is known.
func (t *Timekeeper) RoundTripper(base *http.Transport) http.RoundTripper {
	if base == nil {
		base, _ = http.DefaultTransport.(*http.Transport)
	}
	if base == nil { // the program has another one
		base = &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	}
	v := &verifier{clock: t.clock, turn: make(chan struct{}, 1)}
	v.now = verifyingAt(base, t.clock.verificationTime)
	v.other = verifyingAt(base, func() time.Time {
		if at := v.at.Load(); at != nil {
			return *at
		}
		return t.clock.verificationTime()
	})
	return v
}

func verifyingAt(base *http.Transport, now func() time.Time) http.RoundTripper {
	t := base.Clone()
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = new(tls.Config)
	}
	t.TLSClientConfig.Time = now
	return redial.Over(t)
}

// verifier sends requests over connections whose certificates it verifies now, and those
// for which that has failed over others.
type verifier struct {
	clock      *clock
	now, other http.RoundTripper
	turn       chan struct{}             // capacity 1; whose it is chooses at
	at         atomic.Pointer[time.Time] // of other
}

// CloseIdleConnections is for http.Client's method of that name.
func (v *verifier) CloseIdleConnections() {
	for _, base := range []http.RoundTripper{v.now, v.other} {
		base.(interface{ CloseIdleConnections() }).CloseIdleConnections()
	}
}

func (v *verifier) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := v.now.RoundTrip(req)
	if err == nil {
		return resp, nil
	}
	at, err := v.clock.otherTime(err)
	if at.IsZero() {
		return nil, err
	}
	again := req.Clone(req.Context())
	if req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return nil, err
		}
		if again.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	select {
	case v.turn <- struct{}{}:
	case <-req.Context().Done():
		closeBody(again)
		return nil, req.Context().Err()
	}
	done := sync.OnceFunc(func() { <-v.turn })
	defer done()
	v.at.Store(&at)
	// Once there is a connection, the next one may choose its time.
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { done() }}
	if resp, err = v.other.RoundTrip(again.WithContext(httptrace.WithClientTrace(again.Context(), trace))); err != nil {
		return nil, err
	}
	resp.Request = req
	return resp, nil
}

// verificationTime returns the time at which certificates are verified first.
func (c *clock) verificationTime() (at time.Time) {
	set := c.saysSet()
	c.read(func(read moment) {
		past, _ := c.certain(read, set)
		at = latest(read.device.Add(c.offset), past)
	})
	return at
}

// otherTime returns another time to verify certificates at for which that has failed,
// zero if there is none, and then the error.
func (c *clock) otherTime(err error) (time.Time, error) {
	var failed *tls.CertificateVerificationError
	if !errors.As(err, &failed) || len(failed.UnverifiedCertificates) == 0 {
		return time.Time{}, err
	}
	leaf := failed.UnverifiedCertificates[0]
	begin, ofTime := leaf.NotBefore, false
	now := c.verificationTime()
	for _, certificate := range failed.UnverifiedCertificates {
		ofTime = ofTime || now.Before(certificate.NotBefore) || now.After(certificate.NotAfter)
		if certificate.NotBefore.Before(leaf.NotAfter) {
			begin = latest(begin, certificate.NotBefore)
		}
	}
	if !ofTime {
		return time.Time{}, err
	}
	set := c.saysSet()
	var past time.Time
	var source string
	c.read(func(read moment) { past, source = c.certain(read, set) })
	if past.After(leaf.NotAfter) {
		return time.Time{}, fmt.Errorf("%w (it is certainly later than %s, %s)", err, past.UTC().Format(time.RFC3339), source)
	}
	return latest(begin, past), err
}

// saysSet asks the machine whether its clock is set.
func (c *clock) saysSet() bool { return c.isSet != nil && c.isSet() }

// certain returns a time that is certainly past, and how that is known. set says that the
// machine calls its clock set. c.mu is held.
func (c *clock) certain(now moment, set bool) (past time.Time, source string) {
	earliest, why := c.built, "when this program was built"
	switch {
	case !c.heard.device.IsZero():
		past, source = c.heard.device.Add(now.process.Sub(c.heard.process)), "by what the issuer has said"
	case set:
		past, source = now.device, "by the device's clock, which the machine says is set"
	default:
		past, source = c.newest, fmt.Sprintf("by the newest time heard, which is kept in %s; delete that file if it is wrong", c.file)
	}
	if !past.After(earliest) {
		return earliest, why
	}
	return past, source
}
