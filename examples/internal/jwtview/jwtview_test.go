// SPDX-License-Identifier: Apache-2.0

package jwtview_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/jwtview"
)

func part(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func TestDecode(t *testing.T) {
	view, err := jwtview.Decode(part(`{"alg":"ES256"}`) + "." + part(`{"sub":"a&b"}`) + ".c2ln\n")
	if err != nil {
		t.Fatal(err)
	}
	want := "{\n  \"header\": {\n    \"alg\": \"ES256\"\n  },\n  \"claims\": {\n    \"sub\": \"a&b\"\n  }\n}"
	if got := view.String(); got != want {
		t.Errorf("got %s", got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := part(`{"alg":"ES256"}`)
	for name, compact := range map[string]string{
		"empty":           "",
		"two parts":       good + "." + good,
		"four parts":      good + "." + good + "." + good + "." + good,
		"not base64url":   good + ".%%." + good,
		"padding":         good + "." + good + "=." + good,
		"not JSON":        part("x") + "." + good + ".",
		"not an object":   good + "." + part("[1]") + ".",
		"torn JSON":       good + "." + part(`{"sub":`) + ".",
		"trailing object": good + "." + part(`{}{}`) + ".",
	} {
		t.Run(name, func(t *testing.T) {
			view, err := jwtview.Decode(compact)
			if err == nil {
				t.Fatalf("got %s", view)
			}
			if compact != "" && strings.Contains(err.Error(), compact) {
				t.Errorf("error quotes the JWT: %v", err)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(part(`{"alg":"ES256","typ":"x"}`) + "." + part(`{"sub":"s","exp":1}`) + ".c2ln")
	f.Add(part(`{}`) + "." + part(`{"a":[1,{"b":null}]}`) + ".")
	f.Add("..")
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, compact string) {
		view, err := jwtview.Decode(compact)
		if err != nil {
			return
		}
		if !json.Valid([]byte(view.String())) {
			t.Errorf("%q is shown as %q", compact, view)
		}
	})
}
