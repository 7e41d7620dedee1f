// SPDX-License-Identifier: Apache-2.0

package report

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

//go:embed page.html.tmpl page.css page.js
var assets embed.FS

var pages = template.Must(template.New("").Parse(asset("page.html.tmpl") + figureText))

func asset(name string) string {
	content, err := assets.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return string(content)
}

// A page is what its template is given.
type page struct {
	Title, Program, Began string
	Acts                  []actView
	Style                 template.CSS
	Script                template.JS
	Policy                string // Content-Security-Policy
}

type actView struct {
	Prefix, Title string
	Outcome       string // "ok", "failed" or "empty"
	OutcomeText   string
	Facts         []Field
	Duration      string
	Figure        figure
	Failure       *Failure
	FailureLabel  string
	Steps         []stepView
	Timeline      *timeline
	Software      bool
}

type stepView struct {
	Prefix, ID, Badge, Title, State string
	Idle                            string
	Times, Requests                 string
	TPM, Network, Waiting           string
	TPMName                         string
	// What a time comes to each time; "" if it ran once.
	TPMEach, NetworkEach, WaitingEach string
	Error                             string
	Verdict                           []Verdict
	VerdictOf                         string
	Messages                          []messageView
	More                              string
}

type messageView struct {
	Message
	Notable, Plain   []Field // of the header
	FromName, ToName string
	AtText           string
	Tokens           []tokenView
}

type tokenView struct {
	Name, Is       string
	Header, Claims []claimView
}

type claimView struct {
	Field
	Is   string // what it is for
	Read string // the value as people read it; "" if it is that already
}

// WriteHTML writes the page.
func (d Document) WriteHTML(w io.Writer) error {
	style, script := asset("page.css")+figureStyle, asset("page.js")
	p := page{
		Title: d.Title, Program: d.Program, Style: template.CSS(style), Script: template.JS(script),
		Policy: fmt.Sprintf("default-src 'none'; style-src %s; script-src %s; base-uri 'none'; form-action 'none'", hashOf(style), hashOf(script)),
	}
	if p.Title == "" {
		p.Title = "A run of the flow"
	}
	if !d.Began.IsZero() {
		p.Began = d.Began.UTC().Format("2 January 2006, 15:04:05 UTC")
	}
	for i, a := range d.Acts {
		p.Acts = append(p.Acts, a.view(fmt.Sprintf("act%d-", i+1)))
	}
	return execute(w, "page", p)
}

// execute writes what a template makes of data, without what is no text: control
// characters, and such as turn the direction of writing. A Document may be anybody's.
func execute(w io.Writer, name string, data any) error {
	var out strings.Builder
	if err := pages.ExecuteTemplate(&out, name, data); err != nil {
		return err
	}
	_, err := io.WriteString(w, strings.Map(func(c rune) rune {
		if c != '\n' && c != '\t' && unicode.In(c, unicode.C, unicode.Zl, unicode.Zp) || c == utf8.RuneError || c&0xfffe == 0xfffe {
			return -1
		}
		return c
	}, strings.TrimSpace(out.String())+"\n"))
	return err
}

// hashOf is how a Content-Security-Policy names a text.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (a Act) view(prefix string) actView {
	v := actView{Prefix: prefix, Title: a.Title, Facts: a.Facts, Failure: a.Failure, Timeline: a.timeline(), Software: a.Software}
	if a.Duration > 0 {
		v.Duration = a.Duration.String()
	}
	switch {
	case a.Failure != nil && a.Failure.Step != "":
		v.Outcome, v.OutcomeText = "failed", "stopped at "+label(a.Failure.Step)
		v.FailureLabel = label(a.Failure.Step)
	case a.Failure != nil:
		v.Outcome, v.OutcomeText = "failed", "failed"
	case len(a.Steps) == 0:
		v.Outcome, v.OutcomeText = "empty", "no step ran"
	default:
		v.Outcome, v.OutcomeText = "ok", "went through"
	}
	v.Figure = draw(portrait, a, prefix, timesOf)
	// Those that ran come first, in their order.
	for _, s := range a.Steps {
		if i := indexOf(s.ID); i >= 0 {
			v.Steps = append(v.Steps, a.stepView(i, &s, prefix))
		}
	}
	for i, s := range steps {
		isFigures := s.id != Metadata && s.id != ResourceCall
		if a.step(s.id) == nil && (isFigures || a.state(s.id) == "failed") {
			v.Steps = append(v.Steps, a.stepView(i, nil, prefix))
		}
	}
	return v
}

func (a Act) stepView(i int, s *Step, prefix string) stepView {
	of := steps[i]
	v := stepView{Prefix: prefix, ID: string(of.id), Badge: of.badge, Title: of.title, State: a.state(of.id), TPMName: "TPM"}
	if a.Software {
		v.TPMName = "key"
	}
	if v.State == "failed" {
		v.Error = a.Failure.Error
		if n := a.Failure.Count; n > 1 {
			v.Error += fmt.Sprintf(" — and %s more like it, or others", grouped(n-1))
		}
	}
	if s == nil {
		v.Idle = of.idle
		return v
	}
	if s.Requests > 0 {
		v.Requests = plural(s.Requests, "request")
	}
	v.TPM, v.Network, v.Waiting = told(s.TPM), told(s.Network), told(s.Waiting)
	if s.Count > 1 {
		v.Times = plural(s.Count, "time")
		each := func(m Milliseconds) string {
			if m <= 0 {
				return ""
			}
			return fmt.Sprintf(" in all, %s each", m/Milliseconds(s.Count))
		}
		v.TPMEach, v.NetworkEach, v.WaitingEach = each(s.TPM), each(s.Network), each(s.Waiting)
	}
	v.Verdict = s.Verdict
	switch of.id {
	case VerifyEvidence:
		v.VerdictOf = "Client Attester"
		if d := a.step(Attestation); d != nil {
			token, _ := d.lastJWT()
			v.Verdict = append(v.Verdict[:len(v.Verdict):len(v.Verdict)], verdictOf(token)...)
		}
	case Answer:
		v.VerdictOf = "Authorization Server"
	}
	for _, m := range s.Messages {
		v.Messages = append(v.Messages, viewOf(m))
	}
	if s.MoreMessages > 0 {
		v.More = fmt.Sprintf("%s more of this step are not kept.", plural(s.MoreMessages, "message"))
	}
	if len(v.Messages) == 0 && len(v.Verdict) == 0 && v.Error == "" {
		v.Idle = "It has no message of its own."
		if of.id == VerifyEvidence {
			v.Idle = "The attester has verified on its own side: its answer is step (d)."
		}
	}
	return v
}

func told(m Milliseconds) string {
	if m <= 0 {
		return ""
	}
	return m.String()
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return grouped(n) + " " + what
}

// kinds of JWTs, by the header field or member that they are in.
var kinds = map[string]string{
	"OAuth-Client-Attestation":     "Client Attestation JWT",
	"client_attestation":           "Client Attestation JWT",
	"OAuth-Client-Attestation-PoP": "PoP JWT",
	"DPoP":                         "DPoP proof",
	"request":                      "Signed request",
}

// notable are header fields that are part of the flow.
var notable = []string{
	"oauth-client-attestation", "oauth-client-attestation-pop", "oauth-client-attestation-challenge", "dpop", "dpop-nonce",
	"authorization", "www-authenticate", "retry-after",
}

func viewOf(m Message) messageView {
	v := messageView{Message: m, FromName: names[m.From], ToName: names[m.To], AtText: m.At.String()}
	for _, f := range m.Header {
		if slices.Contains(notable, strings.ToLower(f.Name)) {
			v.Notable = append(v.Notable, f)
		} else {
			v.Plain = append(v.Plain, f)
		}
	}
	for _, token := range m.JWTs {
		view := tokenView{Name: token.Name, Is: kinds[token.Name]}
		for _, f := range byMeaning(token.Header) {
			is, _ := meaning(f.Name)
			view.Header = append(view.Header, claimView{f, is, ""})
		}
		for _, f := range byMeaning(token.Claims) {
			is, _ := meaning(f.Name)
			view.Claims = append(view.Claims, claimView{f, is, readable(f)})
		}
		v.Tokens = append(v.Tokens, view)
	}
	return v
}

// readable is the value of a claim as people read it.
func readable(f Field) string {
	switch f.Name {
	case "iat", "exp", "nbf":
		if seconds, err := strconv.ParseInt(f.Value, 10, 64); err == nil && seconds > 0 && seconds < 1<<36 {
			return time.Unix(seconds, 0).UTC().Format("2 January 2006, 15:04:05 UTC")
		}
	case "hwmodel":
		return JWT{Claims: []Field{f}}.device()
	}
	return ""
}

// Timed are the steps that ran, for the table of times.
func (v actView) Timed() (timed []stepView) {
	for _, s := range v.Steps {
		if s.Requests != "" || s.TPM != "" || s.Network != "" || s.Waiting != "" {
			timed = append(timed, s)
		}
	}
	return timed
}
