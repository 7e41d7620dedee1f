// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Servers limit a request's header: 8 kB is typical, 16 kB the most that is
// common, and some answer what is longer with an empty 431 (draft, "HTTP Header
// Size").
const (
	headerWarning = 8 << 10  // bytes
	headerLimit   = 16 << 10 // bytes
)

// ErrHeaderTooLarge: the request's header would have more than 16 kB. Servers refuse such
// a header without saying why. Nothing was sent. The usual cause is a certificate chain
// in the attestation. The attester can give a "kid" instead.
var ErrHeaderTooLarge = errors.New("transport: request header too large")

func (t *Transport) checkHeaderSize(ctx context.Context, to *route, h http.Header) error {
	total := 0
	for name, values := range h {
		total += headerSize(name, values)
	}
	if total <= headerWarning {
		return nil
	}
	var parts []string
	for name, values := range h {
		if isOneOf(name, credentials) || strings.EqualFold(name, HeaderDPoP) {
			parts = append(parts, fmt.Sprintf("%s %d", name, headerSize(name, values)))
		}
	}
	slices.Sort(parts)
	if total > headerLimit {
		return fmt.Errorf("%w: %d bytes, limit %d, %s", ErrHeaderTooLarge, total, headerLimit, strings.Join(parts, ", "))
	}
	t.log.WarnContext(ctx, "transport: request header is larger than many servers take", "audience", to.identifier, "bytes", total, "parts", strings.Join(parts, ", "))
	return nil
}

func headerSize(name string, values []string) (size int) {
	for _, value := range values {
		size += len(name) + len(": \r\n") + len(value)
	}
	return size
}

// The names as net/http writes them into a Header, so that they need not be put into that
// form for each request.
var (
	fieldAttestation    = http.CanonicalHeaderKey(HeaderAttestation)
	fieldAttestationPoP = http.CanonicalHeaderKey(HeaderAttestationPoP)
	fieldChallenge      = http.CanonicalHeaderKey(HeaderChallenge)
	fieldDPoP           = http.CanonicalHeaderKey(HeaderDPoP)
	fieldDPoPNonce      = http.CanonicalHeaderKey(HeaderDPoPNonce)
)

// isToken reports whether an attestation's header field may hold it: an Item of type
// Token (draft -12, "Client Attestation JWT"; RFC 9651, section 3.3.4) of the
// characters that -11's token68 has as well. A JWT in compact form is one.
func isToken(attestation string) bool {
	for i := range len(attestation) {
		c := attestation[i]
		isLetter := 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		if !isLetter && (i == 0 || !('0' <= c && c <= '9' || strings.ContainsRune("._~+/-", rune(c)))) {
			return false
		}
	}
	return attestation != ""
}

// keepSingle sees to it that net/http does not repeat a request by itself on a new
// connection, with the same PoP, which it does with a POST that has one of these fields.
// A resource gets them under a name that net/http does not look for.
func keepSingle(h http.Header, isResource bool) {
	for _, known := range []string{"idempotency-key", "x-idempotency-key"} {
		var values []string
		for name, more := range h {
			if strings.EqualFold(name, known) {
				values = append(values, more...)
				delete(h, name)
			}
		}
		if isResource && len(values) > 0 {
			h[known] = values
		}
	}
}

// credentials are the header fields that only this package may set.
var credentials = []string{HeaderAttestation, HeaderAttestationPoP}

// remove deletes header fields, in whatever case the caller has put their names
// into the map.
func remove(h http.Header, names ...string) {
	for name := range h {
		if isOneOf(name, names) {
			delete(h, name)
		}
	}
}

func hasCredentials(h http.Header) bool {
	for name := range h {
		if isOneOf(name, credentials) {
			return true
		}
	}
	return false
}

func isOneOf(name string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}
