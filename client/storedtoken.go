// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/internal/privatefile"
)

// A StoredToken is a token together with what it is bound to, to be kept over restarts. A
// server accepts a refresh token only with the Client Instance Key that it was issued to
// (draft, "Refresh Tokens"). A server may revoke a refresh token that comes with another
// key.
//
// It prints without its token. [StoredToken.Write] is the way to keep it.
type StoredToken struct {
	Token    *oauth2.Token
	Issuer   string
	ClientID string
	// Thumbprint is the RFC 7638 thumbprint of the Client Instance Key.
	Thumbprint string
	// DPoPThumbprint is that of the key the access token is bound to, "" for a
	// bearer token.
	DPoPThumbprint string

	// expiry is Token.Expiry by the corrected clock; zero: not known. The device's clock,
	// which golang.org/x/oauth2 goes by, may be set before Adopt.
	expiry time.Time
}

// ErrOtherKey: the stored token is bound to another Client Instance Key, client or issuer
// than this Client's. The Client does not send such a token: the server might revoke it.
// The instance has to be authorized anew.
var ErrOtherKey = errors.New("client: stored token belongs to another key, client or issuer")

const maxStoredToken = 256 << 10 // bytes

// Bind returns a token that this Client got together with the keys that the token is
// bound to, and with the time at which it expires by the server's clock, as far as the
// Client knows that.
func (c *Client) Bind(token *oauth2.Token) (StoredToken, error) {
	if token == nil {
		return StoredToken{}, errors.New("client: no token to bind")
	}
	s := StoredToken{Token: token, Issuer: c.issuer, ClientID: c.clientID, Thumbprint: c.thumbprint}
	if !token.Expiry.IsZero() {
		s.expiry = c.clock.now().Round(0).Add(time.Until(token.Expiry))
	}
	if !strings.EqualFold(token.TokenType, "DPoP") {
		return s, nil
	}
	thumbprint, err := c.tokenThumbprint(c.knownMethod())
	if err != nil {
		return StoredToken{}, err
	}
	s.DPoPThumbprint = cmp.Or(thumbprint, c.thumbprint)
	return s, nil
}

// Adopt returns the token of s for use with this Client. A token of another key, client
// or issuer is ErrOtherKey. If the access token is bound to a DPoP key that this Client
// does not have, Adopt drops the access token alone. The result has then expired, and its
// refresh token is good.
//
// The result's Expiry is by the device's clock, as Valid has it, even if that clock is
// wrong or was set since Bind. It is right for what the Client knows of the time now: keep
// the StoredToken, and adopt it again each time that a token is needed.
func (c *Client) Adopt(s StoredToken) (*oauth2.Token, error) {
	switch {
	case s.Token == nil:
		return nil, errors.New("client: stored token is empty")
	case s.Issuer != c.issuer || s.ClientID != c.clientID || s.Thumbprint != c.thumbprint && !c.anyKey:
		return nil, fmt.Errorf("%w: it is of client %.60q at issuer %.200q with key %.60q, this is client %q at issuer %q with key %s",
			ErrOtherKey, s.ClientID, s.Issuer, s.Thumbprint, c.clientID, c.issuer, c.thumbprint)
	}
	token := *s.Token
	if !s.expiry.IsZero() && !token.Expiry.IsZero() {
		token.Expiry = expiryIn(s.expiry.Sub(c.clock.now()), token.Expiry)
	}
	if s.DPoPThumbprint != "" && !c.hasKey(s.DPoPThumbprint) {
		token.AccessToken, token.Expiry = "", time.Unix(1, 0)
	}
	return &token, nil
}

// Refresh gets a new token for a refresh token (RFC 6749, section 6). The Client gets a
// challenge before it sends the refresh token. The answer may contain another refresh
// token, which then replaces the old one: store it before you do anything else. Errors
// are those of [Client.Token]. With an error the result is nil, or a token that has the
// next refresh token and nothing else. The latter happens if the server has issued a
// refresh token and the rest of its answer is of no use (ErrTokenType) or cannot be read.
//
// Callers do not share a call of Refresh. Do not call it twice at the same time with one
// refresh token.
func (c *Client) Refresh(ctx context.Context, refreshToken string) (*oauth2.Token, error) {
	defer c.clock.tell(ctx)
	if refreshToken == "" {
		return nil, errors.New("client: no refresh token")
	}
	s, err := c.server(ctx)
	if err != nil {
		return nil, err
	}
	config := oauth2.Config{
		ClientID: c.clientID,
		Endpoint: oauth2.Endpoint{TokenURL: s.metadata.TokenEndpoint, AuthStyle: oauth2.AuthStyleInParams},
	}
	request := &tokenRequest{client: c}
	token, err := config.TokenSource(request.with(ctx), &oauth2.Token{RefreshToken: refreshToken}).Token()
	// The old refresh token may be burnt: the new one must not be lost together with
	// the access token.
	if err != nil {
		return refreshAlone(refreshTokenIn(request.received)), withPrefix(c.tokenError(request, err))
	}
	if err := c.checkType(s, token); err != nil {
		return refreshAlone(token.RefreshToken), err
	}
	return token, nil
}

// refreshAlone returns a token that has expired and can be refreshed, nil if there
// is nothing to refresh it with.
func refreshAlone(refreshToken string) *oauth2.Token {
	if refreshToken == "" {
		return nil
	}
	return &oauth2.Token{RefreshToken: refreshToken, Expiry: time.Unix(1, 0)}
}

// storedJSON is a StoredToken in its file.
type storedJSON struct {
	Issuer         string        `json:"issuer"`
	ClientID       string        `json:"client_id"`
	Thumbprint     string        `json:"jkt"`
	DPoPThumbprint string        `json:"dpop_jkt,omitempty"`
	Token          *oauth2.Token `json:"token"`
	Expiry         time.Time     `json:"expiry,omitzero"` // by the corrected clock
	// Extra is what x/oauth2 has of the answer beside the token itself and leaves out
	// of its JSON.
	Extra map[string]any `json:"extra,omitempty"`
}

// extras are the members of token responses that are kept: those registered by RFC
// 6749, RFC 8693, RFC 9396 and OpenID Connect Core.
var extras = []string{"scope", "issued_token_type", "authorization_details", "id_token"}

// Write writes s to a file of mode 0600, which is replaced atomically. On Windows the
// file has an access control list of its owner, SYSTEM and Administrators. What a killed
// process has left of an earlier try goes. Of what the server said beside the token,
// the file keeps scope, id_token, authorization_details and issued_token_type, for
// the token's Extra.
func (s StoredToken) Write(file string) error {
	if s.Token == nil {
		return errors.New("client: stored token is empty")
	}
	extra := make(map[string]any)
	for _, name := range extras {
		if value := s.Token.Extra(name); value != nil && value != "" {
			extra[name] = value
		}
	}
	content, err := json.Marshal(storedJSON{s.Issuer, s.ClientID, s.Thumbprint, s.DPoPThumbprint, s.Token, s.expiry, extra})
	if err != nil {
		return fmt.Errorf("client: stored token: %w", err)
	}
	if len(content) > maxStoredToken {
		return fmt.Errorf("client: stored token: %d bytes, more than the %d that are read again", len(content), maxStoredToken)
	}
	if err := privatefile.Replace(file, content); err != nil {
		return fmt.Errorf("client: stored token: %w", err)
	}
	return nil
}

// ReadStoredToken reads what Write has written. Errors of the file system are
// wrapped; a file that others may read or write is refused, and so is a symbolic link.
// Others are on Windows all but the user, the owner, SYSTEM and Administrators, and the
// owner has to be one of these, or a service.
func ReadStoredToken(file string) (StoredToken, error) {
	content, err := privatefile.Read(file, maxStoredToken)
	if err != nil {
		return StoredToken{}, fmt.Errorf("client: stored token: %w", err)
	}
	var s storedJSON
	if err := json.Unmarshal(content, &s); err != nil || s.Token == nil {
		return StoredToken{}, fmt.Errorf("client: %s does not hold a stored token", file)
	}
	if len(s.Extra) > 0 {
		s.Token = s.Token.WithExtra(s.Extra)
	}
	return StoredToken{s.Token, s.Issuer, s.ClientID, s.Thumbprint, s.DPoPThumbprint, s.Expiry}, nil
}

// String tells what the token is bound to, not the token.
func (s StoredToken) String() string {
	return fmt.Sprintf("client.StoredToken{Issuer: %q, ClientID: %q, Thumbprint: %q, Token: redacted}", s.Issuer, s.ClientID, s.Thumbprint)
}

// GoString is String.
func (s StoredToken) GoString() string { return s.String() }

// LogValue is String.
func (s StoredToken) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON fails: a token is kept with Write, not by accident in a log.
func (s StoredToken) MarshalJSON() ([]byte, error) {
	return nil, errors.New("client: a StoredToken is not marshalled: use its Write method")
}
