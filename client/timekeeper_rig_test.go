// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/release"
	"github.com/instancekey/instancekey/transport/transporttest"
)

const day = 24 * time.Hour

// certificates is a chain of three: how old each of them is, and how long it is good yet.
type certificates struct{ root, above, leaf [2]time.Duration }

// public is what servers on the Internet have.
var public = certificates{[2]time.Duration{3000 * day, 3000 * day}, [2]time.Duration{600 * day, 600 * day}, [2]time.Duration{30 * day, 60 * day}}

// fresh has a certificate of today, which lives for a week.
var fresh = certificates{[2]time.Duration{3000 * day, 3000 * day}, [2]time.Duration{5 * day, 90 * day}, [2]time.Duration{time.Hour, 7 * day}}

// A timeRig is a rig behind TLS at a time that the test chooses: the one of r.clock.
type timeRig struct {
	*rig
	roots *x509.CertPool
}

// newTimeRig makes one where it is more than a year after this version was made, whatever
// the time is where this test runs.
func newTimeRig(t testing.TB, chain certificates) *timeRig {
	r := &timeRig{rig: newRig(t, transporttest.Policy{})}
	r.clock.advance(release.Since.AddDate(1, 4, 0).Sub(r.clock.now()))
	server, roots := chain.serve(t, r.clock.now(), r.rig)
	r.roots = roots
	tenant := strings.TrimPrefix(r.Issuer, r.URL)
	r.URL, r.Issuer = server.URL, server.URL+tenant
	return r
}

func (chain certificates) serve(t testing.TB, now time.Time, handler http.Handler) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	var parent *x509.Certificate
	var signer *ecdsa.PrivateKey
	var presented tls.Certificate
	roots := x509.NewCertPool()
	for i, life := range [][2]time.Duration{chain.root, chain.above, chain.leaf} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: []string{"root", "above", "leaf"}[i]},
			NotBefore: now.Add(-life[0]), NotAfter: now.Add(life[1]), IsCA: i < 2, BasicConstraintsValid: true,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		if parent == nil {
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		if parent, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		signer = key
		if i == 0 {
			roots.AddCert(parent)
			continue
		}
		presented.Certificate = append([][]byte{der}, presented.Certificate...)
		presented.PrivateKey = key
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{presented}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are what is tested
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, roots
}

// network sends requests as a device with that Timekeeper does; servers have the rig's time.
func (r *timeRig) network(t testing.TB, keeper *client.Timekeeper) http.RoundTripper {
	base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots}}
	network := keeper.RoundTripper(base)
	t.Cleanup(network.(interface{ CloseIdleConnections() }).CloseIdleConnections)
	return dated{network, r.clock.now, 0, ""}
}

// keeper makes the Timekeeper of a device whose clock is off.
func (r *timeRig) keeper(off time.Duration, edits ...func(*client.TimekeeperConfig)) *client.Timekeeper {
	cfg := client.TimekeeperConfig{Clock: func() time.Time { return r.clock.now().Add(off) }, Built: r.clock.now().Add(-365 * day)}
	for _, edit := range edits {
		edit(&cfg)
	}
	return client.NewTimekeeper(cfg)
}

func (r *timeRig) client(t testing.TB, keeper *client.Timekeeper, edits ...func(*client.Config)) *client.Client {
	t.Helper()
	return r.rig.client(t, append([]func(*client.Config){func(cfg *client.Config) {
		cfg.Clock, cfg.Timekeeper, cfg.Base = nil, keeper, r.network(t, keeper)
	}}, edits...)...)
}

func said(answer bool) func(*client.TimekeeperConfig) {
	return func(cfg *client.TimekeeperConfig) { cfg.IsSet = func() bool { return answer } }
}
