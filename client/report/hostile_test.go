// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client/report"
)

// hostile are texts that would be more than that on a careless page.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</style><script>alert(1)</script>`, `</script><script>alert(1)</script>`,
	`</title></svg><svg onload=alert(1)>`, `javascript:alert(1)`, `]]><!--`, `--><script>alert(1)</script>`, `{{.Style}}`, "\u202egnp.exe\u0000\u001b[31m", `&lt;script&gt;`, `url(https://evil.example.com)`,
}

// fill puts texts into all that is a text of a value, however deep, and one element into
// each slice.
func fill(v reflect.Value, next func() string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(next())
	case reflect.Int, reflect.Float64, reflect.Bool:
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), next)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), next)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), next)
		}
	}
}

// TestHostileDocument: whatever texts a Document has, and it may be somebody else's JSON,
// the page has the tags of its templates and no others.
func TestHostileDocument(t *testing.T) {
	all := []report.StepID{"a", "b", "c", "d", "f", "1", "2", "3", "4", "5", "metadata", "resource"}
	for _, text := range hostile {
		var d report.Document
		texts := 0
		fill(reflect.ValueOf(&d).Elem(), func() string { texts++; return text })
		if texts < 25 {
			t.Fatalf("%d texts", texts)
		}
		act := d.Acts[0]
		act.Steps[0].Messages[0].JWTs[0].Claims = append(act.Steps[0].Messages[0].JWTs[0].Claims, report.Field{Name: "submods", Value: `{"platform":{"ear_status":"` + strings.ReplaceAll(text, `"`, `\"`) + `","ear_trustworthiness_vector":{"hardware":2}}}`})
		var steps []report.Step
		for _, id := range all {
			s := act.Steps[0]
			s.ID, s.Count = id, 1
			steps = append(steps, s)
		}
		act.Steps = append(steps, act.Steps...) // and one of no known name
		act.Failure.Step = report.Answer
		d.Acts = append(d.Acts, act)

		var page, figure, again bytes.Buffer
		if err := errors.Join(d.WriteHTML(&page), d.WriteFigure(&figure), d.WriteJSON(&again)); err != nil {
			t.Fatal(err)
		}
		for _, out := range []string{page.String(), figure.String()} {
			checkTags(t, text, out)
		}
		wellFormed(t, text, figure.Bytes())
		if _, err := report.Read(&again); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// tag is what a browser takes for one.
var (
	tag    = regexp.MustCompile(`(?s)<[a-zA-Z!/?][^>]*>`)
	quoted = regexp.MustCompile(`"[^"]*"`) // an attribute's value

	elsewhere = regexp.MustCompile(`(href|src|action)="?(javascript|https?):`)
	handler   = regexp.MustCompile(`\son\w+\s*=`)
)

// checkTags reports tags and attributes that are none of the templates'.
func checkTags(t *testing.T, text, out string) {
	t.Helper()
	if scripts := strings.Count(out, "<script"); scripts > 1 || strings.Contains(out, "<img") || strings.Contains(out, "<!--") {
		t.Errorf("%q: %d scripts, or a tag of its own", text, scripts)
	}
	seen := make(map[string]bool)
	for _, found := range tag.FindAllString(out, -1) {
		if seen[found] {
			continue
		}
		seen[found] = true
		if elsewhere.MatchString(found) {
			t.Errorf("%q: a tag leads elsewhere: %s", text, found)
		}
		if handler.MatchString(quoted.ReplaceAllString(strings.ToLower(found), `""`)) {
			t.Errorf("%q: a tag is %s", text, found)
		}
	}
	if strings.ContainsAny(out, "\u0000\u001b\u202e") {
		t.Errorf("%q: a control character", text)
	}
}

// wellFormed reports an SVG that is no XML.
func wellFormed(t *testing.T, text string, svg []byte) {
	t.Helper()
	for decoder := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := decoder.Token(); err == io.EOF {
			return
		} else if err != nil {
			t.Errorf("%q: the figure is no XML: %v", text, err)
			return
		}
	}
}

// TestHostileServers: what servers send is text, in each field that they control.
func TestHostileServers(t *testing.T) {
	for _, text := range hostile {
		w := newWorld(t)
		w.claims = map[string]any{text: text, "swname": text, "submods": map[string]any{text: map[string]any{"ear_status": text}}}
		w.gives(issuer+"/challenge", 200, map[string]any{"attestation_challenge": strings.Map(func(c rune) rune {
			if c < ' ' {
				return -1
			}
			return c
		}, text), text: text})
		w.gives(issuer+"/token", 400, map[string]any{"error": text, "error_description": text, "scope": text, text: text})
		recorder, err := w.run(nil)
		if err == nil {
			t.Fatal("it did not fail")
		}
		page, _, figure := written(t, recorder.Act())
		checkTags(t, text, page)
		checkTags(t, text, figure)
		wellFormed(t, text, []byte(figure))
	}
}

// TestPageLoadsNothing: the page's policy allows its own style and script by their hash,
// and nothing else.
func TestPageLoadsNothing(t *testing.T) {
	page, _, _ := written(t)
	if !regexp.MustCompile(`content="default-src &#39;none&#39;; style-src &#39;sha256-[^&]+&#39;; script-src &#39;sha256-[^&]+&#39;; base-uri &#39;none&#39;; form-action &#39;none&#39;"`).MatchString(strings.NewReplacer("&#43;", "+").Replace(page)) &&
		!strings.Contains(page, "default-src 'none'; style-src 'sha256-") {
		t.Error("there is no policy, or another")
	}
	for _, from := range []string{"<link", "@import", "src=", "url("} {
		if strings.Contains(page, from) {
			t.Errorf("the page has %s", from)
		}
	}
}
