// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/instancekey/instancekey/internal/privatefile"
)

// maxFile bounds what is read of a file that a flag names, in bytes.
const maxFile = 1 << 20

// readFile reads a file of moderate size.
func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(content) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxFile)
	}
	return content, err
}

// readSecret reads a file that holds one line.
func readSecret(name string) (string, error) {
	content, err := readFile(name)
	if err != nil {
		return "", err
	}
	line := strings.TrimSpace(string(content))
	if line == "" || strings.ContainsAny(line, " \t\r\n") {
		return "", fmt.Errorf("%s does not hold one word on one line", name)
	}
	return line, nil
}

// writeOut writes what -out is for: "-" is standard output.
func (p *program) writeOut(name, secret string) error {
	if name == "-" {
		_, err := fmt.Fprintln(p.secrets, secret)
		return err
	}
	return writeSecret(name, secret)
}

// writeSecret writes a file, with mode 0600, complete or not at all. A link stays, and
// what it leads to is written. What is not a plain file, and what the program has open
// already, such as /dev/stdout, is written to as it is.
func writeSecret(name, secret string) error {
	name, isOpen, err := follow(name)
	if err != nil {
		return err
	}
	if isOpen || special(name) {
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(file, secret)
		return errors.Join(err, file.Close())
	}
	return privatefile.Replace(name, []byte(secret))
}

// warnReadable says so if others can read the file of a flag that is to be
// secret.
func (p *program) warnReadable(flag, name string) {
	if err := privatefile.CheckFile(name, privatefile.Reading); errors.Is(err, privatefile.ErrMode) {
		p.log.Warn(flag + ": others can read the secret in this file: " + err.Error())
	}
}

// checkWritable reports, before anything is sent, whether writeSecret would
// fail: what a server gives once must not be lost for want of a folder.
func checkWritable(name string) error {
	name, isOpen, err := follow(name)
	if err != nil || isOpen {
		return err
	}
	info, err := os.Stat(name)
	if err == nil && info.IsDir() {
		return &fs.PathError{Op: "write", Path: name, Err: errors.New("is a folder")}
	}
	if special(name) {
		return nil
	}
	temp, err := os.CreateTemp(filepath.Dir(name), privatefile.TempPrefix)
	if err != nil {
		return err
	}
	return errors.Join(temp.Close(), os.Remove(temp.Name()))
}

// maxLinks bounds how many links one after the other are followed.
const maxLinks = 40

// follow returns the file that a link leads to, which need not be there, or name. isOpen
// says that it leads to a descriptor that a process has open: a file of that name can
// only be written to, and never be replaced.
func follow(name string) (target string, isOpen bool, err error) {
	for range maxLinks {
		folder, err := filepath.EvalSymlinks(filepath.Dir(name))
		if err != nil {
			return name, false, nil // whoever writes says so
		}
		if name = filepath.Join(folder, filepath.Base(name)); strings.HasPrefix(name, "/proc/") || strings.HasPrefix(name, "/dev/fd/") {
			return name, true, nil
		}
		to, err := os.Readlink(name)
		if err != nil {
			return name, false, nil
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(folder, to)
		}
		name = to
	}
	return "", false, &fs.PathError{Op: "write", Path: name, Err: errors.New("too many links")}
}

// special reports whether a file is there and is something else than a plain one.
func special(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.Mode().IsRegular()
}
