// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
)

// Client authentication methods (section 8). At a resource they are attestation
// as an additional signal (section 7.6), with the same proofs.
const (
	MethodPoP  = "attest_jwt_client_auth"      // a Client Attestation PoP JWT
	MethodDPoP = "attest_jwt_client_auth_dpop" // combined mode: a DPoP proof with the Client Instance Key
)

// A Client is one registered OAuth client, which many Client Instances share.
type Client struct {
	// ID is the client_id: the sub of the client's attestations.
	ID string
	// Method is the one authentication method that the client is registered
	// for: MethodPoP (also when empty) or MethodDPoP.
	Method string
	// Scopes are those that the client may have. A request that names none
	// gets all of them.
	Scopes []string
	// RedirectURIs give the client the authorization code grant, with one of
	// them in a pushed authorization request. They are compared as text.
	RedirectURIs []string
}

// register fills in clients and methods.
func (s *Server) register(clients []Client) error {
	if len(clients) == 0 {
		return errors.New("no client is registered")
	}
	for _, c := range clients {
		if c.Method == "" {
			c.Method = MethodPoP
		}
		_, taken := s.clients[c.ID]
		switch {
		case c.ID == "":
			return errors.New("client without an ID")
		case taken:
			return fmt.Errorf("client %q is registered twice", c.ID)
		case c.Method != MethodPoP && c.Method != MethodDPoP:
			return fmt.Errorf("client %q: unknown method %q", c.ID, c.Method)
		}
		for _, uri := range c.RedirectURIs {
			if u, err := url.Parse(uri); err != nil || !u.IsAbs() || u.Fragment != "" {
				return fmt.Errorf("client %q: a redirect URI is not absolute, or has a fragment", c.ID)
			}
		}
		c.Scopes, c.RedirectURIs = slices.Clone(c.Scopes), slices.Clone(c.RedirectURIs)
		s.clients[c.ID] = c
		if !slices.Contains(s.methods, c.Method) {
			s.methods = append(s.methods, c.Method)
		}
	}
	slices.Sort(s.methods)
	return nil
}

// grantsCodes reports whether a client is registered for the authorization code
// grant.
func (s *Server) grantsCodes() bool {
	for _, client := range s.clients {
		if len(client.RedirectURIs) > 0 {
			return true
		}
	}
	return false
}
