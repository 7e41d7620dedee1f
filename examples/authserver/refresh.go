// SPDX-License-Identifier: Apache-2.0

package authserver

import "time"

const (
	refreshLifetime = 30 * 24 * time.Hour
	refreshCapacity = 100_000
)

// A binding is whom a refresh token, or a code, belongs to: the Client Instance,
// and not just the client (sections 10.3 and 10.4).
type binding struct {
	clientID   string
	thumbprint string // of the Client Instance Key
}

// check refuses somebody else. rules are those of the client and of the key.
func (b binding) check(holder binding, what, clientRule, keyRule string) error {
	switch {
	case b.clientID != holder.clientID:
		return refuse(errInvalidGrant, clientRule, "%s of another client", what)
	case b.thumbprint != holder.thumbprint:
		return refuse(errInvalidGrant, keyRule, "%s is bound to another Client Instance Key", what)
	}
	return nil
}

// A grant is what access tokens are issued for.
type grant struct {
	scope    []string
	resource string // resource identifier; "": the server itself
}

type refreshToken struct {
	holder binding
	grant  *grant
}

type refreshTokens struct{ handles[refreshToken] }

func newRefreshTokens(now func() time.Time) *refreshTokens {
	return &refreshTokens{newHandles[refreshToken](refreshLifetime, refreshCapacity, now)}
}

// issue makes a new refresh token.
func (t *refreshTokens) issue(holder binding, granted *grant) string {
	return t.add(refreshToken{holder, granted})
}

// find returns the grant of a token that is valid for the holder. It changes
// nothing.
func (t *refreshTokens) find(token string, holder binding) (*grant, error) {
	found, err := t.get(token)
	if err != nil {
		return nil, refuse(errInvalidGrant, "RFC 6749 6", "refresh token: %v", err)
	}
	return found.grant, found.holder.check(holder, "refresh token", "RFC 6749 6", "10.3")
}

// rotate replaces a token, which find has found, by a new one for the same
// grant. Of two calls with the same token, one fails.
func (t *refreshTokens) rotate(token string) (string, error) {
	found, err := t.take(token)
	if err != nil {
		return "", refuse(errInvalidGrant, "RFC 6749 6", "refresh token: %v", err)
	}
	return t.add(found), nil
}
