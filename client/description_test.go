// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestDescriptionIsShown, quoted, in printable ASCII and at most 200 bytes of it.
func TestDescriptionIsShown(t *testing.T) {
	long := strings.Repeat("0123456789 ", 30)
	for name, test := range map[string]struct{ description, shown string }{
		"ordinary":            {"Client attestation is too old.", `"Client attestation is too old."`},
		"the client's own id": {"client " + "x" + " is not known", `"client x is not known"`},
		"with quotes":         {`say "please"`, `"say \"please\""`},
		"lines":               {"one\r\ntwo\x1b[31m\u202e\x00", `"onetwo[31m"`},
		"long":                {long, `"` + long[:200] + `"`},
		"none":                {"", ""},
	} {
		for _, status := range []int{400, 401} {
			r := newRig(t, transporttest.Policy{})
			body, _ := json.Marshal(map[string]string{"error": "invalid_client", "error_description": test.description})
			r.Set(answerWith(status, "application/json", string(body)))
			_, err := r.client(t).Token(t.Context())
			var failed *transport.Error
			if !errors.As(err, &failed) || failed.Code != "invalid_client" {
				t.Fatalf("%s: %v", name, err)
			}
			if test.shown != "" && !strings.Contains(err.Error(), "("+test.shown+")") || test.shown == "" && strings.Contains(err.Error(), "(") {
				t.Errorf("%s, %d: %v, want %s in it", name, status, err, test.shown)
			}
			if len(failed.Description) > 200 || strings.Trim(err.Error(), printableASCII) != "" {
				t.Errorf("%s, %d: %d bytes, in %q", name, status, len(failed.Description), err)
			}
		}
	}
}

var printableASCII = func() (all string) {
	for c := ' '; c <= '~'; c++ {
		all += string(c)
	}
	return all
}()
