// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A tlsRig is a rig behind TLS, with the right time and a certificate that was
// made a day ago, as the certificates of servers are.
type tlsRig struct {
	*rig
	server *httptest.Server
	roots  *x509.CertPool
	offset atomic.Int64 // of the device's clock, a time.Duration
}

func newTLSRig(t testing.TB) *tlsRig {
	r := &tlsRig{rig: newRig(t, transporttest.Policy{})}
	r.now = time.Now
	r.server, r.roots = newTLSServer(t, r.rig)
	tenant := strings.TrimPrefix(r.Issuer, r.URL)
	r.URL, r.Issuer = r.server.URL, r.server.URL+tenant
	return r
}

func newTLSServer(t testing.TB, handler http.Handler) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "test"},
		NotBefore:    time.Now().AddDate(0, 0, -30),
		NotAfter:     time.Now().AddDate(0, 0, 60),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.Config.ErrorLog = log.New(new(strings.Builder), "", 0) // handshakes that fail are what is tested
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	return server, roots
}

// device is the device's clock.
func (r *tlsRig) device() time.Time { return time.Now().Add(time.Duration(r.offset.Load())) }

func (r *tlsRig) set(offset time.Duration) { r.offset.Store(int64(offset)) }

// floored is the documented remedy: TLS never takes it to be before the program
// was built.
func (r *tlsRig) floored() time.Time {
	built := time.Now().Add(-time.Hour)
	if now := r.device(); now.After(built) {
		return now
	}
	return built
}

func (r *tlsRig) client(t testing.TB, tlsTime func() time.Time, edits ...func(*client.Config)) *client.Client {
	t.Helper()
	base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots, Time: tlsTime}}
	t.Cleanup(base.CloseIdleConnections)
	return r.rig.client(t, append([]func(*client.Config){func(cfg *client.Config) {
		cfg.Base, cfg.Clock = base, r.device
	}}, edits...)...)
}

func (r *tlsRig) counts(t testing.TB, metadata, challenges, tokens int) {
	t.Helper()
	if m, c, n := r.total()-r.Count(transporttest.Challenge)-r.Count(transporttest.Token), r.Count(transporttest.Challenge), r.Count(transporttest.Token); m != metadata || c != challenges || n != tokens {
		t.Errorf("%d requests for metadata, %d for challenges, %d for tokens, want %d, %d, %d", m, c, n, metadata, challenges, tokens)
	}
}
