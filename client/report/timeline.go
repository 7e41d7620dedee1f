// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
)

const (
	maxLanes  = 12 // of each kind of time; what overlaps more is drawn over the last one
	laneTall  = 14
	barTall   = 11
	lineWidth = 1000
)

// A timeline shows what took time, and what of it overlapped.
type timeline struct {
	Groups []laneGroup
	Marks  []mark
	Total  Milliseconds
	More   int // spans that are not drawn
	Over   bool
}

// A laneGroup is the times of one kind, in lanes in which none overlaps.
type laneGroup struct {
	Name, Class string
	Height      int
	Bars        []bar
	Sum         Milliseconds
	Says        string // for who cannot see it
}

type bar struct {
	X, Width  string
	Y, Height int
	Failed    bool
	Title     string
}

// A mark is a place on the scale.
type mark struct {
	Percent int
	Text    string
}

// spanKinds in the order of the timeline.
var spanKinds = []struct {
	kind SpanKind
	name string
}{
	{InTPM, "TPM"},
	{WaitingForIt, "Waiting for the TPM"},
	{AtAttester, "Client Attester"},
	{AtServer, "Authorization Server"},
	{AtResource, "Protected Resource"},
}

func (a Act) timeline() *timeline {
	if len(a.Spans) == 0 {
		return nil
	}
	t := &timeline{More: a.MoreSpans}
	for _, s := range a.Spans {
		t.Total = max(t.Total, s.Start+s.Duration)
	}
	if t.Total <= 0 {
		t.Total = 0.001
	}
	for quarter := range 5 {
		t.Marks = append(t.Marks, mark{25 * quarter, (t.Total * Milliseconds(quarter) / 4).String()})
	}
	for _, k := range spanKinds {
		if g := a.lanes(k.kind, t); g != nil {
			g.Name, g.Class = k.name, string(k.kind)
			if a.Software && k.kind == InTPM {
				g.Name = "Key"
			} else if a.Software && k.kind == WaitingForIt {
				g.Name = "Waiting for the key"
			}
			g.Says = fmt.Sprintf("%s: %s spans, %s in all", g.Name, grouped(len(g.Bars)), g.Sum)
			t.Groups = append(t.Groups, *g)
		}
	}
	return t
}

// lanes puts each span into the first lane that is free.
func (a Act) lanes(kind SpanKind, t *timeline) *laneGroup {
	spans := slices.DeleteFunc(slices.Clone(a.Spans), func(s Span) bool { return s.Kind != kind })
	if len(spans) == 0 {
		return nil
	}
	slices.SortStableFunc(spans, func(x, y Span) int {
		switch {
		case x.Start < y.Start:
			return -1
		case x.Start > y.Start:
			return 1
		}
		return 0
	})
	g := new(laneGroup)
	var ends []Milliseconds
	for _, s := range spans {
		lane := slices.IndexFunc(ends, func(end Milliseconds) bool { return end <= s.Start })
		switch {
		case lane >= 0:
			ends[lane] = s.Start + s.Duration
		case len(ends) < maxLanes:
			lane = len(ends)
			ends = append(ends, s.Start+s.Duration)
		default:
			lane, t.Over = maxLanes-1, true
		}
		g.Sum += s.Duration
		g.Bars = append(g.Bars, bar{
			X:      fmt.Sprintf("%.2f", float64(max(0, s.Start)/t.Total)*lineWidth),
			Width:  fmt.Sprintf("%.2f", max(1.5, float64(s.Duration/t.Total)*lineWidth)),
			Y:      lane*laneTall + 1,
			Height: barTall,
			Failed: s.Failed,
			Title:  fmt.Sprintf("%s %s, from %s on", label(s.Step), s.Duration, s.Start),
		})
	}
	g.Height = len(ends) * laneTall
	return g
}
