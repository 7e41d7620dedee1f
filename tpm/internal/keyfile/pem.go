// SPDX-License-Identifier: Apache-2.0

package keyfile

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

const (
	lineBegin = "-----BEGIN "
	lineEnd   = "-----END "
	lineTail  = "-----"
)

// byteOrderMark begins what some editors write. pem.Decode does not know it.
const byteOrderMark = "\xef\xbb\xbf"

// block is a PEM block and its place in the text, to the end of its last line.
type block struct {
	*pem.Block
	start, end int
}

// findBlocks returns the PEM blocks in a text. What is between them is nothing to
// us, unless it is a block that was torn.
func findBlocks(text []byte) ([]block, error) {
	var blocks []block
	at := 0
	if bytes.HasPrefix(text, []byte(byteOrderMark)) {
		at = len(byteOrderMark)
	}
	for {
		decoded, rest := pem.Decode(text[at:])
		if decoded == nil {
			break
		}
		end := len(text) - len(rest)
		begin := []byte(lineBegin + decoded.Type + lineTail)
		start := at + bytes.LastIndex(text[at:end], begin)
		if err := checkBetween(text[at:start]); err != nil {
			return nil, err
		}
		blocks = append(blocks, block{decoded, start, end})
		at = end
	}
	if isTorn(text[at:]) {
		return nil, errors.New("is torn")
	}
	return blocks, checkBetween(text[at:])
}

// ours are the blocks without which a file does not say what it should.
var ours = []string{blockKey, blockOldKey, blockParent, blockHandle}

// checkBetween looks for damaged blocks that matter, which pem.Decode skips.
func checkBetween(text []byte) error {
	for _, name := range ours {
		if bytes.Contains(text, []byte(lineBegin+name+lineTail)) {
			return fmt.Errorf("has a damaged %q", name)
		}
	}
	return nil
}

// isTorn reports whether a text ends within a PEM block that matters, or may matter: its
// first line may be torn as well.
func isTorn(text []byte) bool {
	last := text[bytes.LastIndexByte(text, '\n')+1:]
	begins := bytes.LastIndex(text, []byte(lineBegin))
	isOpen := begins >= 0 && !bytes.Contains(text[begins:], []byte(lineEnd))
	if isOpen && bytes.HasPrefix([]byte(lineEnd), last) {
		last = nil // of the block that is open
	}
	return slices.ContainsFunc(ours, func(name string) bool {
		begin := []byte(lineBegin + name + lineTail)
		return isOpen && bytes.HasPrefix(text[begins:], begin) || len(last) > 0 && bytes.HasPrefix(begin, last)
	})
}

// Damaged returns the types of other blocks than the key's, such as certificates, that are
// torn or not what they say. The key is whole, and they are nothing to it.
func (k *File) Damaged() (types []string) {
	blocks, err := findBlocks(k.Text)
	if err != nil {
		return nil // it was parsed before
	}
	for at := 0; ; {
		next := bytes.Index(k.Text[at:], []byte(lineBegin))
		if next < 0 {
			return types
		}
		start := at + next
		at = start + len(lineBegin)
		if before := bytes.TrimPrefix(k.Text[:start], []byte(byteOrderMark)); len(before) > 0 && before[len(before)-1] != '\n' {
			continue // in the midst of a line, it begins none
		}
		if i := slices.IndexFunc(blocks, func(b block) bool { return b.start == start }); i >= 0 {
			at = blocks[i].end
			if blocks[i].Type != blockCertificate {
				continue
			}
			if _, err := x509.ParseCertificate(blocks[i].Bytes); err == nil {
				continue
			}
		}
		line, _, _ := bytes.Cut(k.Text[start+len(lineBegin):], []byte("\n"))
		name, _, _ := bytes.Cut(line, []byte(lineTail))
		types = append(types, string(bytes.TrimSpace(name[:min(len(name), maxTypeShown)])))
	}
}

// maxTypeShown bounds what is shown of the type of a block, which may be anything.
const maxTypeShown = 40

// setBlock puts the block in the place of the one of its type, or at the end of
// the text. One without bytes goes.
func setBlock(text []byte, b pem.Block) []byte {
	blocks, err := findBlocks(text)
	if err != nil {
		return text // it was parsed before
	}
	encoded := pem.EncodeToMemory(&b)
	if len(b.Bytes) == 0 {
		encoded = nil
	}
	for i := len(blocks) - 1; i >= 0; i-- {
		if old := blocks[i]; old.Type == b.Type {
			text = splice(text, old, encoded)
			encoded = nil // there is one only
		}
	}
	if len(encoded) > 0 && len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(bytes.Clone(text), '\n')
	}
	return append(bytes.Clone(text), encoded...)
}

// setKey puts another key into the key's block, and leaves its headers and line
// ends as they are.
func setKey(text, der []byte) []byte {
	blocks, err := findBlocks(text)
	at := keyBlock(blocks)
	if err != nil || at < 0 {
		return text // it was parsed before
	}
	b := blocks[at]
	whole := text[b.start:b.end]
	newline := []byte("\n")
	if bytes.Contains(whole, []byte("\r\n")) {
		newline = []byte("\r\n")
	}
	body := bytes.IndexByte(whole, '\n') + 1
	if len(b.Headers) > 0 {
		body += bytes.Index(whole[body:], bytes.Repeat(newline, 2)) + 2*len(newline)
	}
	tail := whole[bytes.LastIndex(whole, []byte(lineEnd)):]
	changed := bytes.Clone(whole[:body])
	encoded := base64.StdEncoding.EncodeToString(der)
	for len(encoded) > 0 {
		n := min(64, len(encoded))
		changed = append(append(changed, encoded[:n]...), newline...)
		encoded = encoded[n:]
	}
	return splice(text, b, append(changed, tail...))
}

func splice(text []byte, b block, with []byte) []byte {
	return append(append(bytes.Clone(text[:b.start]), with...), text[b.end:]...)
}

// HasKey reports whether a text, which may be torn, has the key in it.
func (k *File) HasKey(text []byte) bool {
	_, body, _ := bytes.Cut(text, []byte(lineBegin+blockKey+lineTail))
	body, _, _ = bytes.Cut(body, []byte(lineEnd))
	body = bytes.Join(bytes.Fields(body), nil)
	der := make([]byte, base64.StdEncoding.DecodedLen(len(body)))
	n, _ := base64.StdEncoding.Decode(der, body) // what can be decoded of it
	return bytes.Contains(der[:n], k.Private.Buffer)
}
