// SPDX-License-Identifier: Apache-2.0

package softkey_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

// childEnv makes the test binary do one thing over the folder that it names.
const childEnv = "SOFTKEY_TEST_CHILD"

func TestMain(m *testing.M) {
	if task, dir, ok := strings.Cut(os.Getenv(childEnv), " "); ok {
		if err := child(task, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(task, dir string) error {
	ctx := context.Background()
	s, err := softkey.OpenDir(dir)
	if err != nil {
		return err
	}
	switch task {
	case "OpenOrCreate": // and print the thumbprint, after the parent said so
		fmt.Println("ready")
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return err
		}
		key, err := keystore.OpenOrCreate(ctx, s, "key")
		if err != nil {
			return err
		}
		jkt, err := keystore.Thumbprint(key.Public())
		fmt.Println(jkt)
		return err
	case "CreateForever": // and print each name that was created
		for i := 0; ; i++ {
			name := fmt.Sprintf("key-%d", i)
			if _, err := s.Create(ctx, name); err != nil {
				return err
			}
			fmt.Println(name)
		}
	}
	return errors.New("no such task")
}

func startChild(t *testing.T, task, dir string) (cmd *exec.Cmd, in *os.File, out *bufio.Scanner) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childEnv+"="+task+" "+dir)
	cmd.Stderr = os.Stderr
	stdin, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); in.Close() })
	cmd.Stdin = stdin
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, in, bufio.NewScanner(stdout)
}

// TestProcessesAtOnce: all get one key.
func TestProcessesAtOnce(t *testing.T) {
	dir := newDir(t)
	const processes = 4
	var children [processes]*exec.Cmd
	var starts [processes]*os.File
	var outs [processes]*bufio.Scanner
	for i := range processes {
		children[i], starts[i], outs[i] = startChild(t, "OpenOrCreate", dir)
	}
	for i := range processes {
		if !outs[i].Scan() || outs[i].Text() != "ready" {
			t.Fatalf("process %d is not ready: %q", i, outs[i].Text())
		}
	}
	for i := range processes {
		if _, err := starts[i].WriteString("!"); err != nil {
			t.Fatal(err)
		}
	}
	var got [processes]string
	for i := range processes {
		if outs[i].Scan() {
			got[i] = outs[i].Text()
		}
		if err := children[i].Wait(); err != nil {
			t.Errorf("process %d: %v", i, err)
		}
	}
	stored, err := openDir(t, dir).Open(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	for i := range processes {
		if got[i] != thumbprint(t, stored) {
			t.Errorf("process %d has the key %q, stored is %q", i, got[i], thumbprint(t, stored))
		}
	}
}

// TestKilledProcess: wherever Create was when the process was killed, each name
// holds a whole key or none, and what was reported as created is there.
func TestKilledProcess(t *testing.T) {
	dir := newDir(t)
	const kills = 5
	killed := 0
	for kill := range kills {
		sub := fmt.Sprintf("%s-%d", dir, kill)
		cmd, _, out := startChild(t, "CreateForever", sub)
		var reported []string
		for range kill + 1 {
			if out.Scan() {
				reported = append(reported, out.Text())
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for out.Scan() { // printed before the kill arrived; the last line may be torn
			reported = append(reported, out.Text())
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the process ended by itself")
		}
		killed++
		s := openDir(t, sub)
		names, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(names) < kill+1 || len(names) < len(reported) {
			t.Errorf("%d keys were reported, %q are there", len(reported), names)
		}
		for _, name := range names {
			if _, err := s.Open(t.Context(), name); err != nil {
				t.Errorf("Open(%q) after a kill: %v", name, err)
			}
		}
	}
	if killed != kills {
		t.Errorf("%d processes killed, want %d", killed, kills)
	}
}
