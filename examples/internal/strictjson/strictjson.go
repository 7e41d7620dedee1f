// SPDX-License-Identifier: Apache-2.0

// Package strictjson reads configuration that people write: a member that is
// misspelt, or there twice, must not be taken for one left out, and every error
// says on which line it is.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Lines are where the values of a file are: the number of the line, from 1 on, by
// a path such as "devices[3].model".
type Lines map[string]int

// Errorf returns an error about the value at a path, with its line, or with that of
// what it is missing in.
func (l Lines) Errorf(path, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	for within := path; ; within = within[:max(0, strings.LastIndexAny(within, ".["))] {
		if line := l[within]; line > 0 {
			return fmt.Errorf("line %d: %s: %w", line, path, err)
		}
		if within == "" {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
}

// Unmarshal decodes JSON into dest, a pointer to a zero value of structs, maps,
// slices and plain values. Unknown and duplicate members, members in another case,
// and anything after the value are errors. null is what is left out.
func Unmarshal[T any](data []byte, dest *T) (Lines, error) {
	w := walker{data: data, decoder: json.NewDecoder(bytes.NewReader(data)), lines: make(Lines)}
	if err := w.walk(reflect.TypeFor[T](), ""); err != nil {
		return nil, w.explain(err)
	}
	complain := w.errorf("", "there is more after top-level value")
	if _, err := w.decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, complain
	}
	return w.lines, json.Unmarshal(data, dest)
}

// A walker goes through the text along the type that it is to become. encoding/json
// itself takes "PCRS" for "pcrs", and the last of two.
type walker struct {
	data    []byte
	decoder *json.Decoder
	lines   Lines

	counted, newlines int // in data[:counted]
}

// lineError is an error that says where it is.
type lineError struct{ error }

func (w *walker) errorf(path, format string, args ...any) error {
	if path == "" {
		return lineError{fmt.Errorf("line %d: %w", w.line(), fmt.Errorf(format, args...))}
	}
	return lineError{fmt.Errorf("line %d: %s: %w", w.line(), path, fmt.Errorf(format, args...))}
}

// line returns the line of what comes next.
func (w *walker) line() int {
	read := min(int(w.decoder.InputOffset()), len(w.data))
	for read < len(w.data) && strings.IndexByte(" \t\r\n:,", w.data[read]) >= 0 {
		read++
	}
	w.newlines += bytes.Count(w.data[w.counted:read], []byte("\n"))
	w.counted = read
	return 1 + w.newlines
}

// explain adds the line to an error of the decoder.
func (w *walker) explain(err error) error {
	if errors.As(err, new(lineError)) {
		return err
	}
	at := len(bytes.TrimRight(w.data, " \t\r\n"))
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = min(int(syntax.Offset), len(w.data))
	} else if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("line %d: %w", 1+bytes.Count(w.data[:at], []byte("\n")), err)
}

func (w *walker) walk(t reflect.Type, path string) error {
	w.lines[path] = w.line()
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return w.walkObject(t, path)
	case reflect.Slice:
		return w.walkArray(t, path)
	}
	complain := w.errorf(path, "cannot unmarshal: this is no %s", wordFor(t)) // about the line before the value is read
	err := w.decoder.Decode(reflect.New(t).Interface())
	if errors.As(err, new(*json.UnmarshalTypeError)) {
		return complain
	}
	return err
}

func wordFor(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "list"
	case reflect.Struct, reflect.Map:
		return "object"
	}
	return "number that fits"
}

// open reads the beginning of an object or a list; false if there is null.
func (w *walker) open(begin json.Delim, t reflect.Type, path string) (bool, error) {
	complain := w.errorf(path, "cannot unmarshal: this is no %s", wordFor(t))
	token, err := w.decoder.Token()
	switch {
	case err != nil:
		return false, err
	case token == nil:
		return false, nil
	case token != begin:
		return false, complain
	}
	return true, nil
}

func (w *walker) walkArray(t reflect.Type, path string) error {
	if opened, err := w.open('[', t, path); !opened {
		return err
	}
	for i := 0; w.decoder.More(); i++ {
		if err := w.walk(t.Elem(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	_, err := w.decoder.Token()
	return err
}

func (w *walker) walkObject(t reflect.Type, path string) error {
	if opened, err := w.open('{', t, path); !opened {
		return err
	}
	seen := make(map[string]bool)
	for w.decoder.More() {
		line := w.line()
		token, err := w.decoder.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		member := strings.TrimPrefix(path+"."+name, ".")
		if seen[name] {
			return lineError{fmt.Errorf("line %d: %s: duplicate member", line, member)}
		}
		seen[name] = true
		of, called := memberOf(t, name)
		switch {
		case of == nil:
			return lineError{fmt.Errorf("line %d: %s: unknown field %q", line, member, name)}
		case called != name:
			return lineError{fmt.Errorf("line %d: %s: a member's name is in the wrong case: it is %q", line, member, called)}
		}
		if err := w.walk(of, member); err != nil {
			return err
		}
	}
	_, err := w.decoder.Token()
	return err
}

// memberOf returns the type of a member of a struct or map, and what it is called
// there: perhaps in another case; "" if there is none.
func memberOf(t reflect.Type, name string) (of reflect.Type, called string) {
	if t.Kind() == reflect.Map {
		return t.Elem(), name
	}
	for i := range t.NumField() {
		field := t.Field(i)
		tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if tag == "" {
			tag = field.Name
		}
		if tag == name {
			return field.Type, tag
		}
		if strings.EqualFold(tag, name) {
			of, called = field.Type, tag
		}
	}
	return of, called
}
