// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/instancekey/instancekey/internal/privatefile"
)

// maxDocument is how many bytes of JSON are read.
const maxDocument = 64 << 20

// ErrFormat: what was to be read is no Document.
var ErrFormat = errors.New("report: not a report in JSON")

// Read reads what [Document.WriteJSON] has written. What is no Document is [ErrFormat].
func Read(r io.Reader) (Document, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return Document{}, err
	}
	if len(content) > maxDocument {
		return Document{}, fmt.Errorf("%w: more than %d bytes", ErrFormat, maxDocument)
	}
	var d Document
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		return Document{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Document{}, fmt.Errorf("%w: there is more after it", ErrFormat)
	}
	if d.Version != Version {
		return Document{}, fmt.Errorf("%w: version %d, and this program reads version %d", ErrFormat, d.Version, Version)
	}
	return d, nil
}

// WriteJSON writes the Document as JSON.
func (d Document) WriteJSON(w io.Writer) error {
	d.Version = Version
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(d)
}

// WriteFile writes a file, complete or not at all, which its owner alone may read: JSON
// if its name ends in .json, the first act's figure alone if it ends in .svg, else the
// page.
func (d Document) WriteFile(name string) error {
	write := d.WriteHTML
	switch strings.ToLower(filepath.Ext(name)) {
	case ".json":
		write = d.WriteJSON
	case ".svg":
		write = d.WriteFigure
	}
	var content bytes.Buffer
	if err := write(&content); err != nil {
		return err
	}
	if err := privatefile.Replace(name, content.Bytes()); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}
