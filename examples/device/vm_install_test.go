// SPDX-License-Identifier: Apache-2.0

//go:build devicevm

package main

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// install does what the README says under "As a service".
func (l *vmLife) install() {
	l.sh("mkdir -p /root/files && cd /root/files && tar -xf /dev/vdb")
	l.networkUp()
	block := readme(l.T, "install -m 755 instancekey-device")
	before, rest, found := strings.Cut(block, "DEVICE_FLAGS=")
	_, after, ends := strings.Cut(rest, "\n")
	if !found || !ends {
		l.Fatalf("the README sets no flags: %s", block)
	}
	flags := fmt.Sprintf("-issuer %s -client-id %s -attester %s -resource %s/readings -scope readings -every 2s",
		l.authServer.URL, clientID, l.attester.URL, l.resource.URL)
	l.sh("cd /root/files\n" + before + "DEVICE_FLAGS=" + flags + "\n" + after)
}

func (l *vmLife) networkUp() {
	l.sh(`until ls /sys/class/net | grep -qv lo; do sleep 1; done
		udevadm settle
		link=$(ls /sys/class/net | grep -v lo)
		ip link set $link up; ip addr add 10.0.2.15/24 dev $link; ip route add default via 10.0.2.2`)
}

// pack puts what a technician brings along into an archive, which is a disk of the machine.
func (w *vmWorld) pack(t *testing.T, dir string) {
	t.Helper()
	program := w.build(t, dir)
	var archive bytes.Buffer
	to := tar.NewWriter(&archive)
	for name, from := range map[string]string{"instancekey-device": program, "instancekey-device.service": "instancekey-device.service", "private-ca.crt": w.ca} {
		content, err := os.ReadFile(from)
		if err == nil {
			err = to.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg})
		}
		if err == nil {
			_, err = to.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	archive.Write(make([]byte, 1<<20-archive.Len()%(1<<20))) // whole sectors
	if err := os.WriteFile(filepath.Join(dir, "files.tar"), archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// build makes the program of a commit that was made a year ago: this source in a repository of its own.
func (w *vmWorld) build(t *testing.T, dir string) (program string) {
	t.Helper()
	program = filepath.Join(dir, "instancekey-device")
	build := exec.Command("bash", "-euc", `
		cd "$(git rev-parse --show-toplevel)"
		mkdir "$SOURCE"
		git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -cf - -T - | tar -xf - -C "$SOURCE"
		cd "$SOURCE"
		git init -q
		git add .
		git -c user.name=device-vm -c user.email=device-vm@example.com -c commit.gpgsign=false commit -qm "A year ago"
		go build -buildvcs=true -o "$PROGRAM" ./examples/device`)
	lastYear := time.Now().AddDate(-1, 0, 0).Format(time.RFC3339)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "SOURCE="+filepath.Join(dir, "source"), "PROGRAM="+program, "GIT_AUTHOR_DATE="+lastYear, "GIT_COMMITTER_DATE="+lastYear)
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program in a repository: %v: %s", err, output)
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.time" {
			w.built, err = time.Parse(time.RFC3339, setting.Value)
		}
	}
	if err != nil || w.built.IsZero() {
		t.Fatalf("the program does not know when it was built: %v", err)
	}
	return program
}

// readme returns the block of commands in the README that has this line in it.
func readme(t *testing.T, has string) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	inBlock := false
	for line := range strings.Lines(string(text)) {
		indented := strings.HasPrefix(line, "    ")
		if indented && !inBlock {
			blocks = append(blocks, "")
		}
		if inBlock = indented; indented {
			blocks[len(blocks)-1] += strings.TrimLeft(line, " ")
		}
	}
	for _, block := range blocks {
		if strings.Contains(block, has) {
			return block
		}
	}
	t.Fatalf("the README has no commands with %q", has)
	return ""
}
