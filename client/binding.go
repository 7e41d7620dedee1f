package client

import (
	"context"
	"fmt"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

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

// rebind sees to it that DPoP proofs at r are by the key that tokens are bound to
// (RFC 9449, section 7.1). With another key than the Client Instance Key for
// them, that is settled by the method at the server, which has to be known
// first, and which new metadata may change.
func (c *Client) rebind(ctx context.Context, r *resource) error {
	if c.dpop != DPoPOwnKey {
		return nil // the one key there is
	}
	bound, err := c.settledMethod(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bound == bound {
		return nil
	}
	t, err := c.newResourceTransport(r.metadata, bound)
	if err != nil {
		return fmt.Errorf("%w of %s: %w", ErrMetadata, r.identifier, err)
	}
	r.transport, r.bound = t, bound
	return nil
}
