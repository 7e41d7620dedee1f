// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/instancekey/instancekey/client"
)

// newNetwork returns what sends all requests. Nothing waits for ever on it. keeper judges
// certificates, so that a device whose clock was never set, or is wrong, is not locked
// out. ca is a file of roots, "" the system's.
func newNetwork(keeper *client.Timekeeper, ca string) (http.RoundTripper, error) {
	network := http.DefaultTransport.(*http.Transport).Clone()
	network.ResponseHeaderTimeout = 30 * time.Second
	network.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("-ca: %w", err)
		}
		network.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !network.TLSClientConfig.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("-ca %s: no certificate in PEM", ca)
		}
	}
	return keeper.RoundTripper(network), nil
}
