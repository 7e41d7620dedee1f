// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"testing"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

func TestWord(t *testing.T) {
	refused := &oauth2.RetrieveError{Response: &http.Response{Status: "400 Bad Request", StatusCode: 400}, ErrorCode: "invalid_grant"}
	dial := &net.OpError{Op: "dial", Err: errors.New("refused")}
	noAnswer := &net.OpError{Op: "read", Err: syscall.ETIMEDOUT} // no context's deadline
	for _, tt := range []struct {
		err  error
		want string
	}{
		{keystore.ErrNotFound, "not_found"},
		{keystore.ErrExists, "exists"},
		{keystore.ErrKeyLost, "key_lost"},
		{keystore.ErrCorrupt, "corrupt"},
		{keystore.ErrLockedOut, "locked_out"},
		{keystore.ErrAuth, "auth"},
		{keystore.ErrPolicy, "policy"},
		{keystore.ErrUnavailable, "unavailable"},
		{keystore.ErrClosed, "closed"},
		{client.ErrClosed, "closed"},
		{client.ErrAttestationRefused, "attestation_refused"},
		{client.ErrAttesterUnavailable, "attester_unavailable"},
		{client.ErrInvalidAttestation, "invalid_attestation"},
		{client.ErrMetadata, "metadata"},
		{client.ErrOtherKey, "other_key"},
		{client.ErrTokenType, "token_type"},
		{client.ErrClock, "clock"},
		{transport.ErrRedirect, "redirect"},
		{transport.ErrHeaderTooLarge, "header_too_large"},
		{context.DeadlineExceeded, "timeout"},
		{context.Canceled, "canceled"},
		{dial, "unreachable"},
		{io.ErrUnexpectedEOF, "unreachable"},
		{errors.New("something else"), "failed"},

		// The server's word, and the attester's, before what it came with.
		{&transport.Error{Err: refused}, "invalid_grant"},
		{fmt.Errorf("%w: %w", client.ErrAttesterUnavailable, dial), "attester_unavailable"},
		{fmt.Errorf("%w: %w", client.ErrMetadata, dial), "unreachable"},
		{&url.Error{Op: "Post", URL: "https://as.example.com", Err: errors.New("challenge endpoint answered 500")}, "failed"},
		{&url.Error{Op: "Post", URL: "https://as.example.com", Err: context.DeadlineExceeded}, "timeout"},
		{&url.Error{Op: "Post", URL: "https://as.example.com", Err: &transport.Error{Err: context.DeadlineExceeded}}, "timeout"},
		{&url.Error{Op: "Post", URL: "https://as.example.com", Err: &transport.Error{Err: noAnswer}}, "timeout"},
		{&url.Error{Op: "Post", URL: "https://as.example.com", Err: &transport.Error{Err: dial}}, "unreachable"},
	} {
		if got := word(tt.err); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}
