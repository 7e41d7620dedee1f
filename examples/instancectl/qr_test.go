// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"rsc.io/qr"
)

// TestDrawQR: each module of the code is where it belongs, black or white, and white is
// all around.
func TestDrawQR(t *testing.T) {
	const text = "https://as.example.com/device?user_code=WDJB-MJHT"
	drawn, err := drawQR(text)
	if err != nil {
		t.Fatal(err)
	}
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(drawn, "\n"), "\n")
	if want := (code.Size + 2*quietZone + 1) / 2; len(lines) != want {
		t.Fatalf("%d lines, want %d", len(lines), want)
	}
	black := 0
	for i, line := range lines {
		line = strings.TrimSuffix(strings.TrimPrefix(line, "\x1b[30;47m"), "\x1b[0m")
		if n := len([]rune(line)); n != code.Size+2*quietZone {
			t.Fatalf("line %d has %d characters", i, n)
		}
		for x, r := range []rune(line) {
			for half, isBlack := range []bool{strings.ContainsRune("▀█", r), strings.ContainsRune("▄█", r)} {
				if want := code.Black(x-quietZone, 2*i+half-quietZone); isBlack != want {
					t.Errorf("line %d, character %d, half %d: black %t, want %t", i, x, half, isBlack, want)
				}
				if isBlack {
					black++
				}
			}
		}
	}
	if black < 200 {
		t.Errorf("%d modules are black", black)
	}
	if _, err := drawQR(strings.Repeat("x", 5000)); err == nil {
		t.Error("a text that no code holds was drawn")
	}
}
