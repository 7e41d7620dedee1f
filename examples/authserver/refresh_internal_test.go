// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"testing"
	"time"
)

// TestRefreshCapacity: memory is bounded, and the oldest goes first.
func TestRefreshCapacity(t *testing.T) {
	tokens := newRefreshTokens(time.Now)
	holder := binding{"client", "thumbprint"}
	oldest := tokens.issue(holder, nil)
	second := tokens.issue(holder, nil)
	for range refreshCapacity - 1 {
		tokens.issue(holder, nil)
	}
	if len(tokens.tokens) != refreshCapacity || len(tokens.queue) != refreshCapacity {
		t.Errorf("%d tokens, %d in the queue, want %d", len(tokens.tokens), len(tokens.queue), refreshCapacity)
	}
	if _, err := tokens.find(oldest, holder); err == nil {
		t.Error("the oldest token is still there")
	}
	if _, err := tokens.find(second, holder); err != nil {
		t.Errorf("the second oldest token is gone: %v", err)
	}
}
