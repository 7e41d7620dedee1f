// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/internal/exampletest"
)

// TestKeyLabels: whose a key is that token or attest has named can be told, also when all
// else has failed, until it is deleted.
func TestKeyLabels(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		keys, issuer := t.TempDir(), "http://"+closedPort(t)
		self, _ := newSelf(t)
		place := []string{"-store", store, "-keys", keys}
		r := instancectl(t, append([]string{"token", "-issuer", issuer, "-client-id", "typo", "-self", self}, place...)...)
		name := client.DefaultKeyName(issuer, "typo")
		if r.status != 1 || !strings.Contains(r.stderr, "made a key") || !strings.Contains(r.stderr, name) {
			t.Errorf("status %d, %s", r.status, r.stderr)
		}
		ok(t, append([]string{"attest", "-issuer", issuer, "-client-id", "other", "-self", self}, place...)...)
		ok(t, append([]string{"key", "create", "-name", "plain"}, place...)...)

		if shown := ok(t, append([]string{"key", "show", "-json", "-name", name}, place...)...).stdout; !strings.Contains(shown, `"issuer":"`+issuer+`","client_id":"typo"`) {
			t.Errorf("it is shown as %s", shown)
		}
		if list := ok(t, append([]string{"key", "list", "-json"}, place...)...).stdout; !strings.Contains(list, `{"name":"`+name+`","issuer":"`+issuer+`","client_id":"typo"}`) || !strings.Contains(list, `{"name":"plain"}`) || !strings.Contains(list, `"client_id":"other"`) || strings.Count(list, "\n") != 3 {
			t.Errorf("the list is %q", list)
		}
		ok(t, append([]string{"key", "delete", "-name", name}, place...)...)
		ok(t, append([]string{"key", "create", "-name", name}, place...)...)
		if list := ok(t, append([]string{"key", "list", "-json"}, place...)...).stdout; !strings.Contains(list, `{"name":"`+name+`"}`) {
			t.Errorf("the label was left: %q", list)
		}
	})
}
