// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestRememberedIsBounded: in number and in size, and what is used stays.
func TestRememberedIsBounded(t *testing.T) {
	const capacity = 100
	r := newRemembered(capacity)
	now := time.Unix(1_800_000_000, 0)
	used := &verifiedAttestation{subject: "used"}
	r.put("used", used)
	for i := range 20 * capacity {
		r.put(fmt.Sprint(i), &verifiedAttestation{})
		if n := len(r.young) + len(r.old); n > capacity {
			t.Fatalf("%d remembered, more than %d", n, capacity)
		}
		if r.get("used", now) != used {
			t.Fatalf("forgotten after %d others, though it is used all the time", i)
		}
	}
	if r.get("0", now) != nil || r.get(fmt.Sprint(20*capacity-1), now) == nil {
		t.Error("the oldest is remembered, or the newest is not")
	}
	r.put(strings.Repeat("x", maxRemembered+1), &verifiedAttestation{})
	if r.get(strings.Repeat("x", maxRemembered+1), now) != nil {
		t.Error("a large one is remembered")
	}
}
