// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"net/http"

	"github.com/instancekey/instancekey/transport"
)

// Prepare signs now what the next request to the token endpoint will need, so that it
// does not wait for the key if it is made within Config.SignAhead: for a device that
// knows when it will send. It gets metadata, attestation and challenge if need be. A
// second call changes nothing while half of that time is left.
//
// Errors match [ErrMetadata], [ErrClosed] or [transport.ErrSignAhead] (Config.SignAhead is
// zero, or BindBody or Claims is set), or are of type *[transport.Error]. The next request
// is made all the same.
func (c *Client) Prepare(ctx context.Context) error {
	defer c.clock.tell(ctx)
	s, err := c.server(ctx)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.metadata.TokenEndpoint, nil)
	if err != nil {
		return err
	}
	err = c.transport.Prepare(req)
	if errors.Is(err, transport.ErrClosed) {
		return ErrClosed
	}
	return c.closedOr(err)
}
