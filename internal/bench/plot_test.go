// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The plots are for README.md, on a page that may be light or dark: they bring their own
// ground.
const (
	width, height  = 720, 360
	left, right    = 70, 20
	top, bottom    = 40, 50
	plotW          = width - left - right
	plotH          = height - top - bottom
	svgHead        = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">` + "\n" + `<rect width="100%%" height="100%%" fill="white"/>` + "\n"
	plotsDirectory = "plots"
)

var colours = []string{"#3366aa", "#bb3333", "#228844"}

// drawLatency draws what part of the requests was answered within what time.
func drawLatency(t *testing.T, all []*series) {
	const least, most = 0.1, 1000.0 // ms
	x := func(ms float64) float64 {
		return left + plotW*math.Log(min(max(ms, least), most)/least)/math.Log(most/least)
	}
	y := func(part float64) float64 { return top + plotH*(1-part) }
	var b strings.Builder
	fmt.Fprintf(&b, svgHead, width, height)
	fmt.Fprintf(&b, `<text x="%d" y="22" font-size="15">Requests answered within a time, one a second, on a TPM of 200 ms</text>`+"\n", left)
	for tick := least; tick <= most; tick *= 10 {
		fmt.Fprintf(&b, `<path d="M%.1f %dV%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%g ms</text>`+"\n", x(tick), top, top+plotH, x(tick), top+plotH+18, tick)
	}
	for _, part := range []float64{0, 0.25, 0.5, 0.75, 1} {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.0f %%</text>`+"\n", left, y(part), left+plotW, left-8, y(part)+4, 100*part)
	}
	for i, s := range all {
		sorted := slices.Sorted(slices.Values(s.took))
		fmt.Fprintf(&b, `<path fill="none" stroke="%s" stroke-width="2" d="M%.1f %.1f`, colours[i], x(ms(sorted[0])), y(0))
		for n, took := range sorted {
			fmt.Fprintf(&b, "H%.1fV%.1f", x(ms(took)), y(float64(n+1)/float64(len(sorted))))
		}
		fmt.Fprintf(&b, `H%d"/><text x="%d" y="%d" fill="%s">%s: P50 %.1f ms, P99 %.1f ms</text>`+"\n", left+plotW, left+plotW/2-60, top+plotH/2+20*i, colours[i], s.name, ms(quantile(s.took, 0.5)), ms(quantile(s.took, 0.99)))
	}
	write(t, "latency.svg", b.String())
}

// A bar is one figure of a plot.
type bar struct {
	name  string
	value float64
	text  string
}

func drawBars(t *testing.T, file, title string, bars []bar) {
	most := 0.0
	for _, b := range bars {
		most = max(most, b.value)
	}
	const line, names = 32, 230
	var b strings.Builder
	high := top + line*len(bars) + 20
	fmt.Fprintf(&b, svgHead, width, high)
	fmt.Fprintf(&b, `<text x="20" y="22" font-size="15">%s</text>`+"\n", title)
	for i, bar := range bars {
		at := top + line*i
		long := bar.value / most * (width - names - 110)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.1f" height="20" fill="%s"/><text x="%.1f" y="%d">%s</text>`+"\n",
			names-8, at+15, bar.name, names, at, long, colours[0], names+long+6, at+15, bar.text)
	}
	write(t, file, b.String())
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.MkdirAll(plotsDirectory, 0o755); err != nil {
		t.Fatal(err)
	}
	content += fmt.Sprintf("<!-- %s -->\n</svg>\n", time.Now().UTC().Format(time.DateOnly))
	if err := os.WriteFile(filepath.Join(plotsDirectory, file), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
