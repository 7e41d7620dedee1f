// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// DPoPThumbprint returns the RFC 7638 thumbprint of the key that this Client's tokens are
// bound to, and "" for bearer tokens. The key depends on the method, and the method may
// depend on the server's metadata. DPoPThumbprint fetches the metadata if the Client does
// not have it. Errors are those of [Client.Metadata].
//
// The thumbprint is the value of dpop_jkt. That parameter binds the authorization code to
// the key as well (RFC 9449, section 10), so that only this instance can redeem the code.
// If the thumbprint is not "":
//
//	config.AuthCodeURL(state, oauth2.SetAuthURLParam("dpop_jkt", thumbprint))
//
// With DPoPOwnKey the code, like the tokens, is of no use after this Client. A pushed
// authorization request needs no dpop_jkt: its DPoP proof does the same. A request may
// have both, and then they agree. In combined mode the DPoP proof is the Client's only
// proof of possession, and dpop_jkt cannot replace it (draft, "Using DPoP as the Proof of
// Possession"). Push the authorization request in that mode.
func (c *Client) DPoPThumbprint(ctx context.Context) (string, error) {
	defer c.clock.tell(ctx)
	s, err := c.server(ctx)
	if err != nil {
		return "", err
	}
	return c.tokenThumbprint(s.method)
}

// settledMethod returns how the client authenticates at the server, which only
// metadata tells if it is not configured. Metadata that is known does, however
// old.
func (c *Client) settledMethod(ctx context.Context) (transport.Method, error) {
	if method := c.knownMethod(); method != "" {
		return method, nil
	}
	s, err := c.server(ctx)
	if err != nil {
		return "", err
	}
	return s.method, nil
}

// tokenKey returns the key that tokens are bound to with that method, nil for
// bearer tokens.
func (c *Client) tokenKey(method transport.Method) keystore.Key {
	if method == transport.MethodDPoP {
		return c.key
	}
	return c.dpopKey
}

// knownMethod returns the method that is settled, by the configuration or the
// metadata.
func (c *Client) knownMethod() transport.Method {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.methodOf(c.current)
}

// methodOf returns how the client authenticates at s, which is nil if it is not known.
func (c *Client) methodOf(s *server) transport.Method {
	if s != nil {
		return s.method
	}
	return c.method
}

// tokenThumbprint returns the thumbprint of tokenKey, "" for bearer tokens.
func (c *Client) tokenThumbprint(method transport.Method) (string, error) {
	key := c.tokenKey(method)
	if key == nil {
		return "", nil
	}
	return keystore.Thumbprint(key.Public())
}

// hasKey reports whether this Client makes DPoP proofs with the key of that
// thumbprint.
func (c *Client) hasKey(thumbprint string) bool {
	if thumbprint == c.thumbprint && (c.dpopKey == nil || c.knownMethod() != transport.MethodPoP) {
		return true
	}
	if c.dpopKey == nil {
		return false
	}
	own, err := keystore.Thumbprint(c.dpopKey.Public())
	return err == nil && thumbprint == own
}

// checkType refuses a token that is not bound as asked. A server that answers a
// DPoP proof with a bearer token has taken the binding away.
func (c *Client) checkType(s *server, token *oauth2.Token) error {
	wanted := "Bearer"
	if c.tokenKey(s.method) != nil {
		wanted = "DPoP"
	}
	if !strings.EqualFold(token.TokenType, wanted) {
		return fmt.Errorf("%w: %.40q, not %s", ErrTokenType, token.TokenType, wanted)
	}
	return nil
}
