// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"rsc.io/qr"
)

// quietZone is how many modules of white a QR code needs around it, for those that read it
// with a telephone: four by ISO/IEC 18004; two do on a screen.
const quietZone = 2

// drawQR returns a QR code in half blocks, two modules above each other in a character,
// black on white whatever the colours of the terminal are.
func drawQR(text string) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", err
	}
	const blackOnWhite, reset = "\x1b[30;47m", "\x1b[0m"
	blocks := map[[2]bool]string{{false, false}: " ", {true, false}: "▀", {false, true}: "▄", {true, true}: "█"}
	var drawn strings.Builder
	for y := -quietZone; y < code.Size+quietZone; y += 2 {
		drawn.WriteString(blackOnWhite)
		for x := -quietZone; x < code.Size+quietZone; x++ {
			drawn.WriteString(blocks[[2]bool{code.Black(x, y), code.Black(x, y+1)}]) // outside it is white
		}
		drawn.WriteString(reset + "\n")
	}
	return drawn.String(), nil
}
