// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Authentication schemes for access tokens (RFC 6750, RFC 9449).
const (
	schemeBearer = "Bearer"
	schemeDPoP   = "DPoP"
)

// credentials returns the access token of a request and the scheme it is shown
// under, which is known also with some errors.
func credentials(header http.Header) (scheme, token string, err error) {
	fields := header.Values("Authorization")
	if len(fields) == 0 {
		// Without a code: there was nothing to refuse (RFC 6750, section 3.1).
		return "", "", refuse("", "RFC 6750 3.1", "no access token")
	}
	scheme, token, _ = strings.Cut(fields[0], " ")
	switch {
	case strings.EqualFold(scheme, schemeBearer):
		scheme = schemeBearer
	case strings.EqualFold(scheme, schemeDPoP):
		scheme = schemeDPoP
	default:
		return "", "", refuse("", "RFC 6750 3.1", "Authorization has another scheme")
	}
	if len(fields) > 1 {
		return scheme, "", refuse(errInvalidRequest, "RFC 6750 3.1", "%d Authorization header fields", len(fields))
	}
	return scheme, strings.TrimLeft(token, " "), nil
}

// checkScheme: a bound token is no bearer token (RFC 9449, section 7.2), nor the
// other way round.
func (rs *resource) checkScheme(scheme string, token *accessToken) error {
	bound := token.Confirmation != nil
	switch {
	case bound && scheme != schemeDPoP:
		return refuse(errInvalidToken, "RFC 9449 7.2", "DPoP-bound token shown as a bearer token")
	case !bound && scheme == schemeDPoP:
		return refuse(errInvalidToken, "RFC 9449 7.1", "bearer token shown as a DPoP-bound one")
	case !bound && rs.config.DPoPRequired:
		return refuse(errInvalidToken, "RFC 9728 2", "only DPoP-bound tokens are taken")
	}
	return nil
}

func (rs *resource) allowMethod(method string) error {
	if !slices.Contains(rs.config.Methods, method) {
		return refuse(errInvalidClientAttestation, "7", "%s is not taken here", popMethods[method])
	}
	return nil
}

// writeRefusal answers with WWW-Authenticate (RFC 6750, section 3; RFC 9449,
// section 7.1; sections 6.1 and 7.4 of the draft): under the scheme of the
// request, and under DPoP what is about the DPoP proof.
func (rs *resource) writeRefusal(w http.ResponseWriter, r *http.Request, err error) {
	refused := rs.logRefusal(r.Context(), w, "resource request", err)
	status := refused.status()
	switch refused.code {
	case errServer, errTemporarilyUnavailable:
		w.WriteHeader(status)
		return
	case errInvalidRequest:
	default:
		status = http.StatusUnauthorized
	}
	scheme, _, _ := credentials(r.Header)
	aboutDPoP := refused.code == errUseDPoPNonce || refused.code == errInvalidDPoPProof
	if !rs.config.DPoPRequired && scheme != schemeDPoP && !aboutDPoP {
		w.Header().Add("WWW-Authenticate", rs.challenge(schemeBearer, refused.code))
	}
	if rs.config.DPoPRequired || scheme != schemeBearer || aboutDPoP {
		w.Header().Add("WWW-Authenticate", rs.challenge(schemeDPoP, refused.code))
	}
	w.WriteHeader(status)
}

func (rs *resource) challenge(scheme, code string) string {
	var params []string
	if code != "" {
		params = append(params, fmt.Sprintf(`error="%s"`, code))
	}
	if scheme == schemeDPoP {
		algorithms := strings.Trim(fmt.Sprint(rs.cfg.ProofAlgorithms), "[]") // with spaces between them
		params = append(params, fmt.Sprintf(`algs="%s"`, algorithms))
	}
	params = append(params, fmt.Sprintf(`resource_metadata="%s"`, rs.metadataURL)) // RFC 9728, section 5.1
	return scheme + " " + strings.Join(params, ", ")
}
