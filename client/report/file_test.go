// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client/report"
	"github.com/instancekey/instancekey/internal/privatefile/privatefiletest"
)

// TestRoundTrip: a page made again from the JSON is the same page.
func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	recorder, err := w.run(nil)
	if err != nil {
		t.Fatal(err)
	}
	d := report.Document{Title: "a run", Program: "test", Began: recorder.Began(), Acts: []report.Act{recorder.Act()}}
	var text, page, again bytes.Buffer
	if err := errors.Join(d.WriteJSON(&text), d.WriteHTML(&page)); err != nil {
		t.Fatal(err)
	}
	read, err := report.Read(&text)
	if err != nil {
		t.Fatal(err)
	}
	if err := read.WriteHTML(&again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(page.Bytes(), again.Bytes()) {
		t.Error("it is another page")
	}
}

// TestRead: what is no Document is refused.
func TestRead(t *testing.T) {
	for _, text := range []string{
		"", "{", "null", "[]", "{}", `{"version":2,"title":"","began":"0001-01-01T00:00:00Z","acts":null}`, `{"version":1,"title":"","acts":[],"more":1}`,
		`{"version":1,"title":"","acts":[]} {}`, `{"version":1,"acts":[{"spans":[{"start_ms":"x"}]}]}`, "<html>",
	} {
		if _, err := report.Read(strings.NewReader(text)); !errors.Is(err, report.ErrFormat) {
			t.Errorf("%q: %v", text, err)
		}
	}
	const good = `{"version":1,"title":"t","acts":[]}`
	if _, err := report.Read(strings.NewReader(good)); err != nil {
		t.Error(err)
	}
	var read spaces
	if _, err := report.Read(io.MultiReader(strings.NewReader(good), &read)); !errors.Is(err, report.ErrFormat) || read > 65<<20 {
		t.Errorf("%v after %d spaces", err, read)
	}
}

// spaces has no end, and counts what is read.
type spaces int

func (s *spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	*s += spaces(len(p))
	return len(p), nil
}

// FuzzRead: whatever is read is drawn.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"version":1,"title":"t","acts":[{"steps":[{"step":"5","count":-1,"tpm_ms":1e300}],"failure":{"step":"x"},"spans":[{"kind":"tpm","start_ms":-1e300,"duration_ms":1e308}]}]}`))
	f.Add([]byte(`{"version":1,"acts":[{"steps":[{"step":"d","messages":[{"jwts":[{"claims":[{"name":"submods","value":"{\"x\":{\"ear_trustworthiness_vector\":{\"y\":1}}}"}]}]}]}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := report.Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		var page, figure bytes.Buffer
		if err := errors.Join(d.WriteHTML(&page), d.WriteFigure(&figure)); err != nil {
			t.Error(err)
		}
		checkTags(t, string(text), page.String())
	})
}

// TestWriteFile: the name says what is written, for the owner alone, whole or not at all.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	for name, begins := range map[string]string{"run.html": "<!doctype html>", "run": "<!doctype html>", "run.json": "{", "RUN.JSON": "{", "run.svg": "<svg xmlns="} {
		file := filepath.Join(dir, name)
		if err := (report.Document{}).WriteFile(file); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(file)
		if err != nil || !bytes.HasPrefix(content, []byte(begins)) {
			t.Errorf("%s: %.40q, %v", name, content, err)
		}
		privatefiletest.Check(t, file)
	}
	if err := (report.Document{}).WriteFile(filepath.Join(dir, "none", "run.html")); err == nil {
		t.Error("it was written where there is no folder")
	}
}
