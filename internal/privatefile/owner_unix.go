// SPDX-License-Identifier: Apache-2.0

//go:build unix

package privatefile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// adopt gives a new file the owner, the group and the mode of the one that it is
// to replace, without any rights of others. Where there is none and root is at work, it gets the owner and the
// group of its folder: an administrator's tool must not take files away from the
// service that they belong to.
func adopt(file *os.File, replaced fs.FileInfo, path string) error {
	like := replaced
	if like == nil && os.Geteuid() == 0 {
		info, err := os.Stat(filepath.Dir(path))
		if err != nil {
			return err
		}
		like = info
	}
	if like == nil {
		return nil
	}
	if err := checkHeir(like, path); err != nil {
		return err
	}
	made, err := file.Stat()
	if err != nil {
		return err
	}
	was, is := like.Sys().(*syscall.Stat_t), made.Sys().(*syscall.Stat_t)
	if was.Uid != is.Uid || was.Gid != is.Gid {
		if err := file.Chown(int(was.Uid), int(was.Gid)); err != nil {
			return fmt.Errorf("it belongs to user %d and group %d and would not any more: do this as that user, or as root: %w", was.Uid, was.Gid, err)
		}
	}
	if replaced == nil {
		return nil
	}
	if mode := replaced.Mode().Perm() &^ Any; mode != made.Mode().Perm() {
		return file.Chmod(mode)
	}
	return nil
}

// checkHeir refuses to give a file to a user who has put one there, into a folder such as
// /tmp. That is Linux's own rule for opening such files (fs.protected_regular).
func checkHeir(replaced fs.FileInfo, path string) error {
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil || folder.Mode().Perm()&Writing == 0 {
		return err
	}
	was, owner := replaced.Sys().(*syscall.Stat_t).Uid, folder.Sys().(*syscall.Stat_t).Uid
	if was == owner || int(was) == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("the file there belongs to user %d, in a folder that others may write to: who has put it there may want to read what is written: remove it: %w", was, fs.ErrPermission)
}
