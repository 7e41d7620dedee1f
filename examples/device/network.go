// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"net/http"
	"runtime/debug"
	"time"
)

// newNetwork returns what sends all requests. Nothing waits for ever on it.
func newNetwork() *http.Transport {
	network := http.DefaultTransport.(*http.Transport).Clone()
	network.ResponseHeaderTimeout = 30 * time.Second
	network.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, Time: noEarlierThan(buildTime(), time.Now)}
	return network
}

// noEarlierThan returns a clock for the verification of certificates. A device
// without a battery for its clock starts in 1970, when no server's certificate
// was valid yet. It is certainly later than when this program was built, and
// with that servers can be reached, which then say what time it is (see
// client.Config.Clock).
func noEarlierThan(built time.Time, clock func() time.Time) func() time.Time {
	return func() time.Time {
		if now := clock(); now.After(built) {
			return now
		}
		return built
	}
}

// buildTime returns the time of the commit that this program was built from, as
// go build notes it; zero if it was built outside of a repository.
func buildTime() (built time.Time) {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return built
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.time" {
			built, _ = time.Parse(time.RFC3339, setting.Value) // which go build has written
		}
	}
	return built
}
