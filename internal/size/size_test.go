// SPDX-License-Identifier: Apache-2.0

// Package size measures what this module adds to a program for a small device.
package size_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// mostKiB is what a program for linux/arm has more than one that calls a server without
// this module, both as they are released (-trimpath, -s -w). A linker fills up segments to
// 64 KiB, so that a little more may be 64 more.
//
// What weighs most, with what the linker adds for each function: go-tpm 550 KiB, of which
// seven commands that it compiles one by one are 120 (tpm/query.go and tpm/authorized.go
// have the others); go-jose with its JSON decoder and the private keys that it could sign
// with 350; tpm 370, client 290, transport 230; the key file format 100. Neither package
// regexp (190) nor a library for CBOR (220) is in it: names are short, and the only CBOR of
// a device is one map.
const mostKiB = 2048

func TestSize(t *testing.T) {
	dir := t.TempDir()
	size := func(program string) int64 {
		file := filepath.Join(dir, program)
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", file, "./testdata/"+program)
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm", "GOFLAGS=")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	with, without := size("with"), size("without")
	kib := (with - without) >> 10
	t.Logf("%d KiB with, %d without: %d more", with>>10, without>>10, kib)
	if kib > mostKiB {
		t.Errorf("%d KiB more than a program without, want %d at the most: go tool nm -size -sort size tells why", kib, mostKiB)
	}
}
