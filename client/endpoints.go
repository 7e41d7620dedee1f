package client

import "context"

// Metadata returns the server's metadata as this Client has checked it, which is
// fetched if need be: its endpoints, for what golang.org/x/oauth2 has no room
// for (pushed authorization requests, CIBA, introspection, revocation). An
// endpoint that the server does not have is "". The copy is the caller's.
//
// Errors match [ErrMetadata], which tells whether to try again, [ErrClosed] or
// ctx.Err().
func (c *Client) Metadata(ctx context.Context) (Metadata, error) {
	s, err := c.server(ctx)
	if err != nil {
		return Metadata{}, err
	}
	return *s.metadata.clone(), nil
}
