// SPDX-License-Identifier: Apache-2.0

package keystore_test

import (
	"context"
	"testing"

	"github.com/instancekey/instancekey/keystore"
)

func TestBackground(t *testing.T) {
	if wanted, ok := keystore.Background(t.Context()); ok || wanted != nil {
		t.Error("a context is of the background by itself")
	}
	somebody := make(chan struct{})
	ctx, cancel := context.WithCancel(keystore.InBackground(t.Context(), somebody))
	defer cancel()
	wanted, ok := keystore.Background(ctx)
	if !ok || wanted == nil {
		t.Fatal("the work is not in the background")
	}
	select {
	case <-wanted:
		t.Error("somebody waits from the beginning")
	default:
	}
	close(somebody)
	<-wanted
}
