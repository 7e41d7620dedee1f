// SPDX-License-Identifier: Apache-2.0

package eat_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/eat"
)

func TestCheck(t *testing.T) {
	for text, good := range map[string]bool{
		`null`: true, `1`: true, `32473`: true, `4294967295`: true, `"AAAA"`: true, `"AAAAAAAAAAAAAAAAAAAAAA"`: true,
		`0`: false, `-1`: false, `1.5`: false, `4294967296`: false, `1e300`: false, `"zz"`: false, `""`: false, `"AAAAAA"`: false,
		`"AAA="`: false, `"AAA+"`: false, `"AAAAAAAAAAAAAAAAAAAAAB"`: false, `"32473"`: false, `true`: false, `[]`: false, `{}`: false,
	} {
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			t.Fatal(err)
		}
		if err := eat.CheckOEMID(value); (err == nil) != good {
			t.Errorf("oemid %s: %v", text, err)
		}
	}
	for length, good := range map[int]bool{0: false, 1: true, 32: true, 33: false, 63: false} {
		if err := eat.CheckHardwareModel(strings.Repeat("x", length)); (err == nil) != good {
			t.Errorf("hwmodel of %d bytes: %v", length, err)
		}
	}
}
