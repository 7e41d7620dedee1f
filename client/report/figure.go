// SPDX-License-Identifier: Apache-2.0

package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
)

//go:embed figure.svg.tmpl
var figureText string

//go:embed figure.css
var figureStyle string

// A drawn figure is what its template is given.
type figure struct {
	Width, Height int
	Boxes         []drawnBox
	Steps         []drawnStep
	Title         string
	Words         string // the steps in words, for who cannot see it
	Style         template.CSS
	Alone         bool // not in a page
}

type drawnBox struct {
	Name, Note string
	X, Y, W, H int
}

// NameX is where the name begins.
func (b drawnBox) NameX() int { return b.X + 14 }

// NameY is the base of the name's line.
func (b drawnBox) NameY() int { return b.Y + 27 }

type drawnStep struct {
	ID         string // "a"
	Badge      string
	Link       string // "" in a document
	State      string // "ran", "idle" or "failed"
	Says       string // for who cannot see it
	X, Y       int
	Line, Head string // of the arrow
	TextX      int
	Anchor     string
	Lines      []drawnLine
	AlsoX      int
	Also       []drawnLine
	Hit        *area
}

// LetterY is the base of the badge's letter.
func (d drawnStep) LetterY() int { return d.Y + 5 }

type drawnLine struct {
	Y     int
	Class string
	Text  string
}

// X and the like are for the template, which reads exported names.
func (a area) X() int { return a.x }
func (a area) Y() int { return a.y }
func (a area) W() int { return a.w }
func (a area) H() int { return a.h }

// WriteFigure writes the figure of the first act alone, as an SVG for documents: with
// what was in the messages, and without times, so that two runs of the same device make
// the same figure. It has its own colours for light and dark.
func (d Document) WriteFigure(w io.Writer) error {
	var act Act
	if len(d.Acts) > 0 {
		act = d.Acts[0]
	}
	f := draw(landscape, act, "", func(s *Step) string { return factOf(act, s) })
	f.Title, f.Alone, f.Style = "OAuth 2.0 Attestation-Based Client Authentication: the steps of a run", true, template.CSS(figureStyle)
	return execute(w, "figure", f)
}

// draw puts an act into a layout. below returns the line below a step's text.
func draw(l layout, act Act, prefix string, below func(*Step) string) figure {
	f := figure{Width: l.width, Height: l.height, Words: inWords(act)}
	for _, b := range l.boxes {
		note := ""
		if b.party == Instance && !act.Software {
			note = "with a TPM"
		}
		f.Boxes = append(f.Boxes, drawnBox{names[b.party], note, b.x, b.y, b.w, b.h})
	}
	for _, spot := range l.spots {
		f.Steps = append(f.Steps, drawStep(spot, act, prefix, below))
	}
	return f
}

func drawStep(spot spot, act Act, prefix string, below func(*Step) string) drawnStep {
	ran := act.step(spot.id)
	step := steps[indexOf(spot.id)]
	d := drawnStep{
		ID: string(spot.id), Badge: step.badge, X: spot.badgeX, Y: spot.badgeY, TextX: spot.textX, Anchor: "start",
		State: act.state(spot.id), Hit: &spot.hit,
	}
	if spot.middle {
		d.Anchor = "middle"
	}
	if prefix != "" {
		d.Link = prefix + d.ID
	}
	for i, text := range spot.lines {
		if act.Software && spot.id == CreateKey {
			text = "makes its key, in software"
		}
		d.Lines = append(d.Lines, drawnLine{spot.textY + i*lineHeight, "says", text})
	}
	if act.Software && spot.id == CreateKey {
		d.Lines = d.Lines[:1]
	}
	if more := spot.also; more != nil {
		d.AlsoX = more.x
		for i, text := range more.lines {
			d.Also = append(d.Also, drawnLine{more.y + i*lineHeight, "says", text})
		}
	}
	extra := ""
	if ran != nil {
		extra = below(ran)
	}
	y := spot.textY + len(d.Lines)*lineHeight
	if spot.middle {
		y = spot.badgeY + 30
	}
	texts := []string{extra}
	if spot.arrow != nil && !spot.middle { // there is little room between two arrows
		texts = strings.Split(extra, separator)
	}
	for i, text := range texts {
		if text != "" {
			d.Lines = append(d.Lines, drawnLine{y + i*lineHeight, "fact", text})
		}
	}
	d.Says = fmt.Sprintf("Step %s: %s. %s", label(spot.id), step.title, act.stateInWords(spot.id))
	if a := spot.arrow; a != nil {
		d.Line = fmt.Sprintf("M%d %dL%d %d", a.x1, a.y1, a.x2, a.y2)
		d.Head = a.head()
	}
	return d
}

// head returns the point of an arrow, which is level or upright.
func (a arrow) head() string {
	switch {
	case a.x2 > a.x1:
		return fmt.Sprintf("M%d %dl-10 -5v10z", a.x2, a.y2)
	case a.x2 < a.x1:
		return fmt.Sprintf("M%d %dl10 -5v10z", a.x2, a.y2)
	case a.y2 > a.y1:
		return fmt.Sprintf("M%d %dl-5 -10h10z", a.x2, a.y2)
	default:
		return fmt.Sprintf("M%d %dl-5 10h10z", a.x2, a.y2)
	}
}
