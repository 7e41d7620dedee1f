// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
)

// newNetwork returns what sends all requests. It trusts the roots in a file, or
// the system's if caFile is empty.
func newNetwork(caFile string) (*http.Transport, error) {
	network := http.DefaultTransport.(*http.Transport).Clone()
	if caFile == "" {
		return network, nil
	}
	pem, err := readFile(caFile)
	if err != nil {
		return nil, usageError{fmt.Errorf("-ca: %w", err)}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, badUsage("-ca: %s has no PEM certificate", caFile)
	}
	network.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return network, nil
}

// isUnknownCA reports whether an error says that a server's certificate leads to no
// root that is trusted here.
func isUnknownCA(err error) bool {
	return errors.As(err, new(x509.UnknownAuthorityError)) || errors.As(err, new(x509.SystemRootsError))
}

// isCertificate reports whether a server was reached and has shown a certificate that
// is not good.
func isCertificate(err error) bool { return errors.As(err, new(*tls.CertificateVerificationError)) }

// networkAdvice says what to do about an error of the network; "" for any other.
func networkAdvice(err error) string {
	var invalid x509.CertificateInvalidError
	var name *net.DNSError
	switch {
	case isUnknownCA(err):
		return "no root that is trusted here has issued the server's certificate: if its CA is a private one, name the root's certificate with -ca FILE"
	case errors.As(err, new(x509.HostnameError)):
		return "the server's certificate is for another host: use the name that is in it"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the server's certificate is not valid at the time that this device's clock says: " + adviceClock
	case isCertificate(err):
		return "the server's certificate is no good: its operator has to replace it"
	case errors.As(err, &name) && name.IsNotFound:
		return "there is no host of this name: correct it, or see the device's DNS"
	case errors.As(err, new(tls.RecordHeaderError)), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "the server does not speak TLS at this port: correct the port"
	case isErrno(err, syscall.ECONNREFUSED, wsaConnectionRefused):
		return "nothing listens there: correct host and port, start the server, or see the device's network"
	case isErrno(err, syscall.ENETUNREACH, syscall.EHOSTUNREACH, wsaNetworkUnreachable, wsaHostUnreachable):
		return "the device has no way to this host: see its network"
	}
	return ""
}

// Windows' numbers of errors of the network. Those that package syscall has there are
// made up, and nothing returns them.
const (
	wsaNetworkUnreachable = syscall.Errno(10051)
	wsaConnectionRefused  = syscall.Errno(10061)
	wsaHostUnreachable    = syscall.Errno(10065)
)

func isErrno(err error, any ...syscall.Errno) bool {
	var number syscall.Errno
	return errors.As(err, &number) && slices.Contains(any, number)
}

// reachAdvice is networkAdvice, and something to begin with for any other error.
func reachAdvice(err error) string {
	if advice := networkAdvice(err); advice != "" {
		return advice
	}
	return "see whether the device has a network, and whether the URL is right"
}
