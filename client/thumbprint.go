package client

import (
	"context"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// DPoPThumbprint returns the RFC 7638 thumbprint of the key that this Client's
// tokens are bound to, "" for bearer tokens. The key depends on the method, and
// so on the server's metadata, which is fetched if need be. Errors are those of
// [Client.Metadata].
//
// It is the value of dpop_jkt, which binds the authorization code to that key as
// well (RFC 9449, section 10), so that only this instance can redeem it. If it is
// not "":
//
//	config.AuthCodeURL(state, oauth2.SetAuthURLParam("dpop_jkt", thumbprint))
//
// With DPoPOwnKey the code, like the tokens, ends with this Client. A pushed
// authorization request needs no dpop_jkt: it carries a DPoP proof, which does
// the same, and if it has both they agree. In combined mode that proof is
// the Client's only proof of possession, and dpop_jkt cannot stand in for it
// (draft, "Using DPoP as the Proof of Possession"): push the request there.
func (c *Client) DPoPThumbprint(ctx context.Context) (string, error) {
	s, err := c.server(ctx)
	if err != nil {
		return "", err
	}
	return c.tokenThumbprint(s.method)
}

// tokenThumbprint returns the thumbprint of tokenKey, "" for bearer tokens.
func (c *Client) tokenThumbprint(method transport.Method) (string, error) {
	key := c.tokenKey(method)
	if key == nil {
		return "", nil
	}
	return keystore.Thumbprint(key.Public())
}
