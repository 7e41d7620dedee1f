package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
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

// writeSecret writes a file, with mode 0600, complete or not at all. What is not
// a plain file, such as /dev/stdout, is written to as it is.
func writeSecret(name, secret string) error {
	if special(name) {
		file, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(file, secret)
		return errors.Join(err, file.Close())
	}
	return privatefile.Replace(name, []byte(secret))
}

// warnReadable says so if others can read the file of a flag that is to be
// secret. On Windows the mode does not tell.
func (p *program) warnReadable(flag, name string) {
	info, err := os.Stat(name)
	if err == nil && runtime.GOOS != "windows" && info.Mode().IsRegular() && info.Mode().Perm()&0o044 != 0 {
		p.log.Warn(flag + ": others can read the secret in this file: chmod go= " + name)
	}
}

// checkWritable reports, before anything is sent, whether writeSecret would
// fail: what a server gives once must not be lost for want of a folder.
func checkWritable(name string) error {
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

// special reports whether a file is there and is something else than a plain one.
func special(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.Mode().IsRegular()
}
