// SPDX-License-Identifier: Apache-2.0

package client

import "time"

// DescribeAttestation checks an attestation at one time and describes it at
// another.
func DescribeAttestation(raw string, req AttestRequest, checked, now time.Time) (string, error) {
	a, err := checkAttestation(raw, req, checked)
	if err != nil {
		return "", err
	}
	return a.describe(now), nil
}

// KeptTokens returns how many tokens a Client keeps.
func KeptTokens(c *Client) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.tokens.kept)
}
